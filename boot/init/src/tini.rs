// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The small init of `--init`: PID 1 of the workload's PID namespace. It starts the workload in a
//! process group of its own, in the foreground of the terminal if there is one, forwards every
//! signal, reaps orphans, and ends with the workload's status, or 128 + n if signal n ended it.

use crate::freestanding::system_call::{
    StringArray, Taken, block_signals, execute, exit, fork, send_signal, take_signal,
};
use crate::freestanding::{Line, stderr, stdin};
use core::ffi::CStr;
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions};

/// `argv[0]` that selects this role of the program.
pub(crate) const NAME: &CStr = c"coracle-init";
/// Orphans reaped before the next signal is looked at: they may end faster than they are reaped.
const MAX_REAPED_AT_ONCE: usize = 64;

const SIGCHLD: u8 = 17;
const SIGTTIN: u8 = 21;
const SIGTTOU: u8 = 22;

/// Runs `program` with `command` as its arguments and the environment of this process.
pub(crate) fn run(program: &CStr, command: &[&'static CStr]) -> ! {
    let arguments = StringArray::new(command.iter().map(|&argument| argument.into()).collect());
    let environment = StringArray::new(crate::freestanding::environment());
    block_signals(true);
    match fork(0, None, || become_workload(program, &arguments, &environment)) {
        Ok((pid, pidfd)) => supervise(pid, &pidfd),
        Err(errno) => fail(program, errno),
    }
}

/// Returns only to end the process with its message printed.
fn become_workload(program: &CStr, arguments: &StringArray, environment: &StringArray) {
    let _ = rustix::process::setpgid(None, None);
    // SIGTTOU is blocked, so a background process may take the terminal. Without a terminal this
    // fails, as it should.
    let _ = rustix::termios::tcsetpgrp(stdin(), rustix::process::getpid());
    block_signals(false);
    fail(program, execute(program, arguments, environment))
}

fn fail(program: &CStr, errno: Errno) -> ! {
    let program = program.to_string_lossy();
    Line::new(format_args!("{program}: cannot be executed (errno {})", errno.raw_os_error())).to(stderr());
    exit(if errno == Errno::NOENT { 127 } else { 126 })
}

fn supervise(workload: Pid, pidfd: &OwnedFd) -> ! {
    let mut more_to_reap = false;
    loop {
        if let Ok(Taken { signal, by_kernel }) = take_signal(!more_to_reap) {
            // A child's may have been merged with one that another process sent.
            more_to_reap |= signal == SIGCHLD;
            // Terminal stops are meant for the foreground process group, which this process is not
            // in.
            if !(by_kernel && [SIGCHLD, SIGTTIN, SIGTTOU].contains(&signal)) {
                // The workload may have ended already; its SIGCHLD follows.
                let _ = send_signal(pidfd.as_fd(), signal);
            }
        }
        if more_to_reap {
            more_to_reap = reap(workload);
        }
    }
}

/// Reaps a bounded number of children, since one SIGCHLD may stand for several; returns whether
/// there may be more.
fn reap(workload: Pid) -> bool {
    for _ in 0..MAX_REAPED_AT_ONCE {
        let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) else { return false };
        if pid == workload {
            let signal = status.terminating_signal().map(|signal| 128 + signal);
            exit(signal.or(status.exit_status()).unwrap_or(0) as u8)
        }
    }
    true
}
