// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What every forked process does in the workload's root before `execve`: find its user, connect
//! its streams, drop to the user, execute.

use super::failure::{Failure, Step};
use super::files::read_image_file;
use super::launch::{Channel, ChildPipes};
use crate::freestanding::replace_standard_descriptors;
use crate::freestanding::system_call::{StringArray, execute};
use alloc::ffi::CString;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::convert::Infallible;
use guest_init::defaults::{MAX_OPEN_FILES, OPEN_FILES};
use guest_init::executable;
use guest_init::user::{self, Identity};
use guest_protocol::run_spec::WindowSize;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags, fchown, open};
use rustix::io::Errno;
use rustix::process::{Gid, Resource, Rlimit, Uid, setrlimit, umask};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};

/// Bound for `/etc/passwd` and `/etc/group`: some 50,000 lines.
const MAX_USER_FILE_SIZE: usize = 4 << 20;

/// Resolves `specification` in the files of this root.
pub(super) fn find_user(specification: &str) -> Result<Identity, Failure> {
    const STEP: &str = "find user";
    let read = |path| match read_image_file(path, MAX_USER_FILE_SIZE) {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(Vec::new()),
        // Ids need no file, so that root can enter and repair it.
        Err(_) if !user::has_name(specification) => Ok(Vec::new()),
        Err(Errno::INVAL) => Err(Failure::configuration(STEP, format!("{path}: not a regular file"))),
        Err(Errno::FBIG) => Err(Failure::configuration(STEP, format!("{path}: larger than 4 MiB"))),
        outcome => outcome.map_err(|errno| Failure::configuration(STEP, path).with_errno(errno)),
    };
    Ok(user::resolve(specification, &read("/etc/passwd")?, &read("/etc/group")?)?)
}

pub(super) fn string_array(strings: &[String]) -> Result<StringArray, Failure> {
    let strings: Result<Vec<CString>, _> = strings.iter().map(|string| CString::new(string.as_bytes())).collect();
    let zero_byte = |_| Failure::configuration("execute", "an argument or a variable contains a zero byte");
    strings.map(StringArray::new).map_err(zero_byte)
}

/// Replaces descriptors 0 to 2 by the pipes or by a new terminal, which is also passed to PID 1.
/// They are owned by the user, who can so open `/dev/stdout`. A `controlling` terminal becomes that
/// of the session.
pub(super) fn connect_streams(
    terminal: Option<WindowSize>,
    controlling: bool,
    user: u32,
    channel: &Channel,
    pipes: &ChildPipes,
) -> Result<(), Failure> {
    const STEP: &str = "connect streams";
    if let Some(size) = terminal {
        let (master, slave) = open_terminal(size).step(STEP, "terminal")?;
        change_owner(&slave, user).step(STEP, "terminal")?;
        channel.send_terminal(&master).step(STEP, "terminal")?;
        if controlling {
            rustix::process::ioctl_tiocsctty(&slave).step(STEP, "terminal")?;
        }
        return replace_standard_descriptors(&slave, &slave, &slave).step(STEP, "terminal");
    }
    let ChildPipes { stdin, stdout, stderr } = pipes;
    for pipe in [stdin, stdout, stderr].into_iter().flatten() {
        change_owner(pipe, user).step(STEP, "pipe")?;
    }
    let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).step(STEP, "/dev/null")?;
    let [stdin, stdout, stderr] = [stdin, stdout, stderr].map(|pipe| pipe.as_ref().unwrap_or(&null));
    replace_standard_descriptors(stdin, stdout, stderr).step(STEP, "pipe")
}

fn change_owner(stream: &OwnedFd, user: u32) -> Result<(), Errno> {
    if user == 0 { Ok(()) } else { fchown(stream, Some(Uid::from_raw(user)), None) }
}

/// A new pseudo-terminal of this `/dev/pts`: master and slave.
fn open_terminal(size: WindowSize) -> Result<(OwnedFd, OwnedFd), Errno> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let master = open("/dev/pts/ptmx", flags, Mode::empty())?;
    unlockpt(&master)?;
    let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    tcsetwinsize(&master, winsize(size))?;
    Ok((master, slave))
}

/// The kernel's form of `size`.
pub(super) fn winsize(size: WindowSize) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// Sets limits and umask, and drops to the user with its groups. Root keeps all capabilities.
pub(super) fn become_user(identity: &Identity) -> Result<(), Failure> {
    const STEP: &str = "become user";
    let files = Rlimit { current: Some(OPEN_FILES), maximum: Some(MAX_OPEN_FILES) };
    setrlimit(Resource::Nofile, files).step(STEP, "limit of open files")?;
    // The kernel's default is a function of memory. As in a container, only memory itself and the
    // control group bound them.
    let unlimited = || Rlimit { current: None, maximum: None };
    setrlimit(Resource::Nproc, unlimited()).step(STEP, "limit of processes")?;
    setrlimit(Resource::Sigpending, unlimited()).step(STEP, "limit of pending signals")?;
    umask(Mode::from_raw_mode(0o022));
    let groups: Vec<Gid> = identity.groups.iter().map(|&group| Gid::from_raw(group)).collect();
    set_thread_groups(&groups).step(STEP, "groups")?;
    if identity.group != 0 {
        set_thread_gid(Gid::from_raw(identity.group)).step(STEP, "group")?;
    }
    if identity.user != 0 {
        set_thread_uid(Uid::from_raw(identity.user)).step(STEP, "user")?;
    }
    Ok(())
}

/// Executes `command`, looked up in `path`. Returns only if that fails.
pub(super) fn execute_command(
    command: &str,
    path: &str,
    arguments: &StringArray,
    environment: &StringArray,
) -> Result<Infallible, Failure> {
    Ok(executable::find(command, path, |file| {
        let file = CString::new(file).map_err(|_| Errno::NOENT.raw_os_error())?;
        Err(execute(&file, arguments, environment).raw_os_error())
    })?)
}
