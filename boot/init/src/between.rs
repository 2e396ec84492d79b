// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The small init of `--init`: PID 1 of the workload's PID namespace. It starts the workload in a process group of its
//! own, in the foreground of the terminal if there is one, passes every signal on, reaps whatever is left to it, and
//! ends with the workload's status, or 128 + n if signal n ended it.

use crate::freestanding::system_call::{
    StringArray, block_signals, execute, exit, run_in_child, send_signal, wait_for_signal,
};
use crate::freestanding::{Line, stderr, stdin};
use core::ffi::CStr;
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions};

/// The name (`argv[0]`) under which this program is the small init.
pub(crate) const NAME: &CStr = c"coracle-init";

const SIGCHLD: u8 = 17;
const SIGTTIN: u8 = 21;
const SIGTTOU: u8 = 22;

/// Runs `program` with `command` as its arguments. The environment is the one that the kernel gave this process.
pub(crate) fn run(program: &CStr, command: &[&'static CStr]) -> ! {
    let arguments = StringArray::new(command.iter().map(|&argument| argument.into()).collect());
    let environment = StringArray::new(crate::freestanding::environment());
    block_signals(true);
    match start(program, &arguments, &environment) {
        Ok((pid, pidfd)) => attend(pid, &pidfd),
        Err(errno) => {
            let program = program.to_string_lossy();
            Line::new(format_args!("{program}: cannot be executed (errno {})", errno.raw_os_error())).to(stderr());
            exit(if errno == Errno::NOENT { 127 } else { 126 })
        }
    }
}

fn start(program: &CStr, arguments: &StringArray, environment: &StringArray) -> Result<(Pid, OwnedFd), Errno> {
    let mut refused = None;
    let child = run_in_child(0, None, &mut || {
        let _ = rustix::process::setpgid(None, None);
        // SIGTTOU is blocked, so a background process may take the terminal. Without a terminal this fails: right.
        let _ = rustix::termios::tcsetpgrp(stdin(), rustix::process::getpid());
        block_signals(false);
        refused = Some(execute(program, arguments, environment));
    })?;
    refused.map_or(Ok(child), Err)
}

fn attend(workload: Pid, pidfd: &OwnedFd) -> ! {
    loop {
        match wait_for_signal() {
            Ok(SIGCHLD) => reap(workload),
            // Stops of the terminal are meant for the foreground, which we are not.
            Ok(SIGTTIN | SIGTTOU) | Err(_) => {}
            Ok(signal) => {
                // It may have ended a moment ago: its SIGCHLD follows.
                let _ = send_signal(pidfd.as_fd(), signal);
            }
        }
    }
}

/// One SIGCHLD may stand for many ends.
fn reap(workload: Pid) {
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        if pid == workload {
            let signal = status.terminating_signal().map(|signal| 128 + signal);
            exit(signal.or(status.exit_status()).unwrap_or(0) as u8)
        }
    }
}
