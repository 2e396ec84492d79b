// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Starting the workload: its control group, its pipes, and the process that becomes it (see `enter.rs`).

use super::enter::{Inherited, enter};
use super::failure::{Failure, Step};
use super::files::{make_folder, read_file, write_file};
use crate::freestanding::system_call::{clone_flags, run_in_child};
use alloc::string::String;
use core::convert::Infallible;
use guest_init::memory_events;
use guest_protocol::run_spec::RunSpec;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, fcntl_setfl, open, openat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, waitpid};

/// Where PID 1 sees the control group of the workload.
const CGROUP: &str = "/sys/fs/cgroup/workload";

/// The running workload.
pub(crate) struct Workload {
    pub(crate) pid: Pid,
    /// Becomes readable when it ends; signals are sent to it.
    pub(crate) pidfd: OwnedFd,
    pub(crate) streams: Streams,
}

/// PID 1's ends of a process's standard streams; those that are written to do not block.
pub(crate) enum Streams {
    /// One pipe each; no input if the host has none to relay.
    Pipes { stdin: Option<OwnedFd>, stdout: OwnedFd, stderr: OwnedFd },
    /// The master of its terminal, whether the host has input to relay, and whether it expects a pipe's line ends.
    Terminal { master: OwnedFd, input: bool, lines: bool },
}

/// Starts the workload of `spec`; it has been executed when this returns.
pub(crate) fn start(spec: &RunSpec) -> Result<Workload, Failure> {
    const STEP: &str = "start workload";
    let cgroup = make_cgroup().step("make control group", CGROUP)?;
    let mut inherited = Inherited::default();
    let has_pipes = spec.terminal.is_none() && spec.system.is_none();
    let pipes = if has_pipes { Some(make_pipes(spec.stdin, &mut inherited)?) } else { None };
    if spec.init {
        inherited.own_program = Some(open("/init", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).step(STEP, "/init")?);
    }

    let namespaces =
        clone_flags::NEW_PIDS | clone_flags::NEW_MOUNTS | clone_flags::NEW_HOST_NAME | clone_flags::NEW_IPC;
    let mut outcome: Option<Result<Infallible, Failure>> = None;
    let (pid, pidfd) =
        run_in_child(namespaces | clone_flags::SHARED_FILES, cgroup.as_ref().map(AsFd::as_fd), &mut || {
            outcome = Some(enter(spec, &mut inherited))
        })
        .step(STEP, "new process")?;
    if let Some(Err(failure)) = outcome {
        let _ = waitpid(Some(pid), WaitOptions::empty());
        return Err(failure);
    }
    let streams = streams_of(pipes, inherited, spec.stdin, spec.terminal.is_none())?;
    Ok(Workload { pid, pidfd, streams })
}

/// Makes the pipes of a new process: PID 1's ends are returned, the other ends are to be inherited.
pub(crate) fn make_pipes(input: bool, inherited: &mut Inherited) -> Result<Streams, Failure> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC).step("start process", "pipe");
    let ((stdout, child_stdout), (stderr, child_stderr)) = (pipe()?, pipe()?);
    let mut stdin = None;
    if input {
        let (child_stdin, ours) = pipe()?;
        fcntl_setfl(&ours, OFlags::NONBLOCK).step("start process", "pipe")?;
        stdin = Some(ours);
        inherited.stdin = Some(child_stdin);
    }
    (inherited.stdout, inherited.stderr) = (Some(child_stdout), Some(child_stderr));
    Ok(Streams::Pipes { stdin, stdout, stderr })
}

/// PID 1's ends, once the process was executed: the pipes, or the master that it handed back, whose line ends are to be
/// those of a pipe if `lines`.
pub(crate) fn streams_of(
    pipes: Option<Streams>,
    inherited: Inherited,
    input: bool,
    lines: bool,
) -> Result<Streams, Failure> {
    match (pipes, inherited.terminal) {
        (Some(pipes), _) => Ok(pipes),
        (None, Some((master, _))) => Ok(Streams::Terminal { master, input, lines }),
        // It was killed on its way to the terminal.
        (None, None) => {
            Err(Failure::surroundings("start process", "the process ended before it was executed", Errno::SRCH))
        }
    }
}

/// Makes the control group and gives it every controller of the kernel; `None` if the kernel has no control groups.
fn make_cgroup() -> Result<Option<OwnedFd>, Errno> {
    match mount("cgroup2", "/sys/fs/cgroup", "cgroup2", MountFlags::empty(), None) {
        Ok(()) => {}
        Err(Errno::NODEV | Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno),
    }
    let controllers = read_file("/sys/fs/cgroup/cgroup.controllers")?;
    let mut enable = String::new();
    for controller in core::str::from_utf8(&controllers).unwrap_or("").split_ascii_whitespace() {
        enable.push('+');
        enable.push_str(controller);
        enable.push(' ');
    }
    write_file("/sys/fs/cgroup/cgroup.subtree_control", enable.as_bytes())?;
    make_folder(CGROUP)?;
    openat(CWD, CGROUP, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map(Some)
}

/// Whether the kernel killed a process of the workload for want of memory.
pub(crate) fn ran_out_of_memory() -> bool {
    read_file("/sys/fs/cgroup/workload/memory.events").is_ok_and(|events| memory_events::kills(&events) > 0)
}
