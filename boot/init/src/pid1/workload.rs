// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Starting the workload: its control group, its pipes, and the process that becomes it (see
//! `enter.rs`). The process is forked before the run specification is known, prepares what does not depend on it, enters its root
//! once PID 1 has mounted that, and gets the specification over its channel.

use super::enter::enter;
use super::failure::{Failure, Step};
use super::files::{make_directory, read_file, write_file};
use super::launch::{Launch, Streams, launch, make_pipes};
use super::mounts::RESTRICTED;
use super::read_ahead::read_program;
use super::staged_mounts::{StagedMounts, share_new_mounts};
use crate::freestanding::system_call::{clone_flags, mount_namespace};
use alloc::string::String;
use guest_init::flat_keyed;
use guest_protocol::run_spec::{RootPreparation, RunSpec};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::mount;
use rustix::process::Pid;

const STEP: &str = "start workload";
/// Where PID 1 sees the control group of the workload.
const CGROUP: &str = "/sys/fs/cgroup/workload";
/// Bound for a start on a slow disk, where the host emulates guest kernel mode.
const START_TIMEOUT_MS: u64 = 120_000;
/// The same for the root, which the maker of a template reads at the lowest priority.
const ROOT_TIMEOUT_MS: u64 = 600_000;

pub(crate) struct Workload {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    pub(crate) streams: Streams,
    /// The workload's mount namespace, if the kernel can open it.
    pub(crate) mounts: Option<OwnedFd>,
}

/// The process that becomes the workload, and waits for what that is.
pub(crate) struct WaitingProcess {
    pid: Pid,
    pidfd: OwnedFd,
    launch: Launch,
    mounts: Option<OwnedFd>,
}

/// Forks the process, and returns once it waits for its root. Mounts of PID 1 reach it until it has its specification.
pub(crate) fn prepare() -> Result<WaitingProcess, Failure> {
    let cgroup = make_cgroup().step("make control group", CGROUP)?;
    share_new_mounts()?;
    let namespaces = clone_flags::NEW_PID | clone_flags::NEW_MOUNT | clone_flags::NEW_UTS | clone_flags::NEW_IPC;
    let (cgroup, pipes) = (cgroup.as_ref().map(AsFd::as_fd), Some(make_pipes(true)?));
    let (pid, pidfd, mut launch) = launch(namespaces, cgroup, pipes, &[], START_TIMEOUT_MS, |channel, mut pipes| {
        let staged = StagedMounts::prepare()?;
        channel.send_prepared().step(STEP, "socket")?;
        let RootPreparation { root, expected } = channel.receive()?;
        let placed = staged.enter_root(&root)?;
        if let Some(program) = expected {
            read_program(&program);
        }
        channel.send_prepared().step(STEP, "socket")?;
        let spec: RunSpec = channel.receive()?;
        if !spec.stdin {
            pipes.stdin = None;
        }
        enter(&spec, placed, channel, &pipes)
    })?;
    launch.wait_until_prepared(&pidfd)?;
    let mounts = mount_namespace(pidfd.as_fd()).ok();
    Ok(WaitingProcess { pid, pidfd, launch, mounts })
}

impl WaitingProcess {
    /// Lets the process enter the root that PID 1 has mounted.
    pub(crate) fn enter_root(&mut self, preparation: &RootPreparation) -> Result<(), Failure> {
        self.launch.send(preparation, ROOT_TIMEOUT_MS)
    }

    /// Returns once the process waits for its run specification.
    pub(crate) fn wait_until_prepared(&mut self) -> Result<(), Failure> {
        self.launch.wait_until_prepared(&self.pidfd)
    }

    /// Starts the workload of `spec`, and returns once it has been executed.
    pub(crate) fn start(self, spec: &RunSpec) -> Result<Workload, Failure> {
        let Self { pid, pidfd, mut launch, mounts } = self;
        // A process that fails with a message unread loses its failure, and one that reads nothing would block this one.
        launch.wait_until_prepared(&pidfd)?;
        let has_pipes = spec.terminal.is_none() && spec.system.is_none();
        launch.keep_pipes(has_pipes, spec.stdin);
        launch.send(spec, START_TIMEOUT_MS)?;
        match launch.wait(&pidfd)? {
            Streams::None => Err(Failure::setup(STEP, "the process was killed before it was executed", Errno::SRCH)),
            streams => Ok(Workload { pid, pidfd, streams, mounts }),
        }
    }
}

/// Creates the workload's control group with all controllers of the kernel. Returns `None` if the
/// kernel has no control groups.
fn make_cgroup() -> Result<Option<OwnedFd>, Errno> {
    match mount("cgroup2", "/sys/fs/cgroup", "cgroup2", RESTRICTED, None) {
        Ok(()) => {}
        Err(Errno::NODEV | Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno),
    }
    let controllers = read_file("/sys/fs/cgroup/cgroup.controllers")?;
    let controllers = core::str::from_utf8(&controllers).unwrap_or("");
    // One that the kernel refuses, with others of its options, keeps all from being enabled.
    if enable(controllers.split_ascii_whitespace()).is_err() {
        for controller in controllers.split_ascii_whitespace() {
            let _ = enable([controller].into_iter());
        }
    }
    make_directory(CGROUP)?;
    openat(CWD, CGROUP, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map(Some)
}

/// Enables `controllers` for control groups in the root, in one write.
fn enable<'a>(controllers: impl Iterator<Item = &'a str>) -> Result<(), Errno> {
    let mut list = String::new();
    for controller in controllers {
        list.push('+');
        list.push_str(controller);
        list.push(' ');
    }
    write_file("/sys/fs/cgroup/cgroup.subtree_control", list.as_bytes())
}

/// Whether the kernel killed a process of the workload because memory ran out.
pub(crate) fn ran_out_of_memory() -> bool {
    read_file("/sys/fs/cgroup/workload/memory.events")
        .is_ok_and(|events| flat_keyed::value(&events, "oom_kill").is_some_and(|kills| kills > 0))
}

/// The processor time of all processes of the workload, unless the kernel has no control groups.
pub(crate) fn cpu_time_us() -> Option<u64> {
    flat_keyed::value(&read_file("/sys/fs/cgroup/workload/cpu.stat").ok()?, "usage_usec")
}
