// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Around a snapshot: the processes of the workload, and those beside it, are stopped by the freezer
//! of their control groups before the machine's state is saved. In a copy they run on only once the
//! machine has an identity of its own, so that no process sees the random numbers, addresses or host
//! name of another machine.

use super::etc;
use super::failure::{Failure, Step};
use super::files::write_file;
use super::launch::timespec;
use super::network;
use crate::freestanding::system_call::{
    ENTROPY_BYTES, add_entropy, exit, fork, milliseconds_since_boot, set_wall_clock,
};
use alloc::format;
use alloc::string::String;
use guest_init::etc_files;
use guest_protocol::identity::Identity;
use guest_protocol::run_spec::RunSpec;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd as _, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, SeekFrom, openat, seek};
use rustix::io::{Errno, read};
use rustix::process::{WaitOptions, waitpid};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

const STEP: &str = "take on the identity of a restored machine";
/// The control groups of the workload and of the processes beside it. The second exists once there
/// was such a process.
const CGROUPS: [&str; 2] = ["/sys/fs/cgroup/workload", "/sys/fs/cgroup/exec"];
/// For the processes to stop: one that waits for a disk does not.
const FREEZE_TIMEOUT_MS: u64 = 20_000;
/// For the files in `/etc`, on a slow disk where the host emulates guest kernel mode.
const FILES_TIMEOUT_MS: u64 = 60_000;

/// Stops all processes but PID 1. After an error they run.
pub(crate) fn freeze() -> Result<(), String> {
    let frozen = try_freeze();
    if frozen.is_err() {
        thaw();
    }
    frozen
}

/// Lets all processes run.
pub(crate) fn thaw() {
    for cgroup in CGROUPS {
        // There may be no such group.
        let _ = write_file(&format!("{cgroup}/cgroup.freeze"), b"0");
    }
}

fn try_freeze() -> Result<(), String> {
    let deadline = milliseconds_since_boot() + FREEZE_TIMEOUT_MS;
    for (index, cgroup) in CGROUPS.iter().enumerate() {
        match write_file(&format!("{cgroup}/cgroup.freeze"), b"1") {
            Ok(()) => {}
            Err(Errno::NOENT) if index > 0 => continue,
            Err(Errno::NOENT) => return Err("the guest's kernel has no control groups".into()),
            Err(errno) => return Err(format!("{cgroup}: errno {}", errno.raw_os_error())),
        }
        let failed = |errno: Errno| format!("{cgroup}: errno {}", errno.raw_os_error());
        wait_until_frozen(&format!("{cgroup}/cgroup.events"), deadline).map_err(failed)?;
    }
    Ok(())
}

/// The kernel notifies of a change of the file, once it was read.
fn wait_until_frozen(events: &str, deadline: u64) -> Result<(), Errno> {
    let file = openat(CWD, events, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    loop {
        if is_frozen(&file)? {
            return Ok(());
        }
        let left = deadline.saturating_sub(milliseconds_since_boot());
        if left == 0 {
            return Err(Errno::TIMEDOUT);
        }
        match poll(&mut [PollFd::new(&file, PollFlags::PRI)], Some(&timespec(left))) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

fn is_frozen(file: &OwnedFd) -> Result<bool, Errno> {
    let mut text = [0; 256];
    seek(file, SeekFrom::Start(0))?;
    let length = read(file, &mut text)?;
    Ok(text[..length].split(|byte| *byte == b'\n').any(|line| line == b"frozen 1"))
}

/// Makes this machine the one of `identity`. Returns `spec` with it. The processes are stopped, and
/// `workload` is the pidfd of one.
pub(crate) fn take_on(identity: Identity, spec: &RunSpec, workload: BorrowedFd<'_>) -> Result<RunSpec, Failure> {
    let Identity { entropy, realtime_ns, hostname, interfaces, resolver, extra_hosts } = identity;
    renew(&entropy, realtime_ns, STEP)?;
    if interfaces.len() != spec.interfaces.len() || interfaces.iter().any(|interface| interface.dhcp.is_some()) {
        return Err(Failure::protocol("the interfaces are not those of a copy"));
    }
    if interfaces != spec.interfaces {
        network::replace(&spec.interfaces, &interfaces)?;
    }
    let mut new = RunSpec { hostname, interfaces, resolver, extra_hosts, ..spec.clone() };
    let old_variable = format!("HOSTNAME={}", spec.hostname);
    for variable in new.environment.iter_mut().filter(|variable| **variable == old_variable) {
        *variable = format!("HOSTNAME={}", new.hostname);
    }
    if new.hostname != spec.hostname || etc_files::contents(&new) != etc_files::contents(spec) {
        change_workload(&new, spec, workload)?;
    }
    Ok(new)
}

/// Gives the kernel random numbers of this machine's own, and the time.
pub(super) fn renew(entropy: &[u8], realtime_ns: u64, step: &'static str) -> Result<(), Failure> {
    let entropy = <[u8; ENTROPY_BYTES]>::try_from(entropy);
    let entropy = entropy.map_err(|_| Failure::protocol("the entropy has another size"))?;
    let random = openat(CWD, "/dev/urandom", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    random.and_then(|random| add_entropy(random.as_fd(), entropy)).step(step, "/dev/urandom")?;
    set_wall_clock(realtime_ns).step(step, "the wall clock")
}

/// Changes the host name and the files of `/etc`, from a process in the namespaces of the workload.
fn change_workload(new: &RunSpec, old: &RunSpec, workload: BorrowedFd<'_>) -> Result<(), Failure> {
    let (pid, pidfd) = fork(0, None, || {
        let errno = enter_and_change(new, old, workload).map_or_else(Errno::raw_os_error, |()| 0);
        exit(errno as u8);
    })
    .step(STEP, "fork")?;
    let mut ended = [PollFd::new(&pidfd, PollFlags::IN)];
    poll(&mut ended, Some(&timespec(FILES_TIMEOUT_MS))).step(STEP, "wait for the files of /etc")?;
    let status = waitpid(Some(pid), WaitOptions::NOHANG).step(STEP, "wait for the files of /etc")?;
    match status.and_then(|(_, status)| status.exit_status()) {
        Some(0) => Ok(()),
        Some(errno) => Err(Failure::setup(STEP, "host name and files of /etc", Errno::from_raw_os_error(errno))),
        None => Err(Failure::setup(STEP, "host name and files of /etc", Errno::TIMEDOUT)),
    }
}

fn enter_and_change(new: &RunSpec, old: &RunSpec, workload: BorrowedFd<'_>) -> Result<(), Errno> {
    etc::rewrite_mounted(new, old)?;
    let namespaces = ThreadNameSpaceType::MOUNT | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME;
    move_into_thread_name_spaces(workload, namespaces)?;
    if new.hostname != old.hostname && !new.hostname.is_empty() {
        rustix::system::sethostname(new.hostname.as_bytes())?;
    }
    etc::rewrite(new, old)
}
