// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The way of the workload's process from its first instruction to `execve`: its root, its surroundings, its user.
//!
//! It runs in the workload's namespaces, in memory shared with PID 1, which waits (see `run_in_child`), and until the
//! standard descriptors are replaced with one table of file descriptors for both: so PID 1 gets hold of the terminal
//! that can only be opened here.

use super::etc::EtcFiles;
use super::failure::{Failure, Step};
use super::files::{make_folders, read_file, write_file};
use super::{root, surroundings};
use crate::between;
use crate::freestanding::replace_standard_descriptors;
use crate::freestanding::system_call::{StringArray, execute, execute_descriptor, leave};
use alloc::ffi::CString;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::convert::Infallible;
use guest_init::user::{self, Identity};
use guest_init::{environment, executable};
use guest_protocol::run_spec::{RunSpec, Upper, WindowSize};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, accessat, fchown, open, stat};
use rustix::io::Errno;
use rustix::mount::mount_bind;
use rustix::process::{Gid, Resource, Rlimit, Uid, chdir, setrlimit, setsid, umask};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use rustix::thread::{UnshareFlags, set_thread_gid, set_thread_groups, set_thread_uid};

/// What is handed from PID 1 to the process, and back.
#[derive(Default)]
pub(crate) struct Inherited {
    /// Read end of the input pipe. A stream that is absent is `/dev/null`, if there is no terminal.
    pub(crate) stdin: Option<OwnedFd>,
    /// Write end of the output pipe.
    pub(crate) stdout: Option<OwnedFd>,
    /// Write end of the error pipe.
    pub(crate) stderr: Option<OwnedFd>,
    /// This program, to put between PID 1 and the workload.
    pub(crate) own_program: Option<OwnedFd>,
    /// Handed back: master and slave of the terminal. PID 1 must close its slave, or the terminal never ends.
    pub(crate) terminal: Option<(OwnedFd, OwnedFd)>,
}

/// Becomes the workload of `spec`. Returns only to say why it could not.
pub(crate) fn enter(spec: &RunSpec, inherited: &mut Inherited) -> Result<Infallible, Failure> {
    let etc = EtcFiles::prepare(spec)?;
    surroundings::move_root(root::PATH)?;
    // The namespace is that of the group one is in, so it cannot be made together with the process. A kernel without
    // control groups has no such namespace either.
    let _ = leave(UnshareFlags::NEWCGROUP);
    surroundings::mount_for_workload()?;
    if spec.system.is_some() {
        surroundings::mount_for_system()?;
    }
    etc.place()?;
    if !spec.hostname.is_empty() {
        rustix::system::sethostname(spec.hostname.as_bytes()).step("set host name", &spec.hostname)?;
    }
    let identity = find_user(&spec.user)?;
    for wanted in &spec.tmpfs {
        surroundings::mount_tmpfs(wanted)?;
    }
    enter_working_directory(&spec.working_directory)?;
    if spec.root.read_only && spec.root.upper != Upper::None {
        surroundings::make_root_read_only()?;
    }
    let environment = environment::complete(&spec.environment, &identity.home, spec.terminal.is_some());
    let (arguments, environment) = (string_array(&spec.arguments)?, string_array(&environment)?);

    setsid().step("start session", "new session")?;
    // An init opens, resets and hangs up /dev/console, so that must be a terminal whatever is on the host.
    let console = spec.system.map(|_| WindowSize::default());
    let terminal = spec.terminal.or(console);
    // It belongs to the sessions that log in on it, and not to their init.
    connect_streams(terminal, spec.system.is_none(), identity.user, inherited)?;
    if terminal.is_some() {
        mount_bind("/dev/pts/0", "/dev/console").step("connect streams", "/dev/console")?;
    }
    if spec.system.is_some() {
        surroundings::share_mounts()?;
    }
    become_user(&identity)?;
    let path = environment::value(&spec.environment, "PATH").unwrap_or(executable::DEFAULT_PATH);
    let command = spec.arguments.first().map_or("", |command| &**command);
    match inherited.own_program.as_ref() {
        None => execute_command(command, path, &arguments, &environment),
        Some(own_program) => execute_in_between(own_program, command, path, &arguments, &environment),
    }
}

/// Finds the user in the files of this root.
pub(super) fn find_user(specification: &str) -> Result<Identity, Failure> {
    const STEP: &str = "find user";
    let read = |path| match read_file(path) {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(Vec::new()),
        outcome => outcome.map_err(|errno| Failure::refused(STEP, path, errno)),
    };
    Ok(user::resolve(specification, &read("/etc/passwd")?, &read("/etc/group")?)?)
}

fn enter_working_directory(path: &str) -> Result<(), Failure> {
    const STEP: &str = "enter working directory";
    let path = format!("/{}", path.trim_start_matches('/'));
    let outcome = match chdir(&*path) {
        Err(Errno::NOENT) => make_folders(&path).and_then(|()| chdir(&*path)),
        outcome => outcome,
    };
    outcome.map_err(|errno| Failure::refused(STEP, path, errno))
}

/// `strings` as `execve` wants them.
pub(super) fn string_array(strings: &[String]) -> Result<StringArray, Failure> {
    let strings: Result<Vec<CString>, _> = strings.iter().map(|string| CString::new(string.as_bytes())).collect();
    let none_inside = |_| Failure::configuration("execute", "an argument or a variable holds a zero byte");
    strings.map(StringArray::new).map_err(none_inside)
}

/// Puts pipes or a terminal in the place of descriptors 0 to 2. They belong to the user, so that `/dev/stdout` can be
/// opened by it. A `controlling` terminal becomes that of the new session.
pub(super) fn connect_streams(
    terminal: Option<WindowSize>,
    controlling: bool,
    user: u32,
    inherited: &mut Inherited,
) -> Result<(), Failure> {
    const STEP: &str = "connect streams";
    if let Some(size) = terminal {
        let (_, slave) = inherited.terminal.insert(open_terminal(size).step(STEP, "terminal")?);
        own(slave, user).step(STEP, "terminal")?;
        leave(UnshareFlags::FILES).step(STEP, "descriptors")?;
        if controlling {
            rustix::process::ioctl_tiocsctty(&*slave).step(STEP, "terminal")?;
        }
        return replace_standard_descriptors(&*slave, &*slave, &*slave).step(STEP, "terminal");
    }
    leave(UnshareFlags::FILES).step(STEP, "descriptors")?;
    let mut null = None;
    if inherited.stdin.is_none() || inherited.stdout.is_none() || inherited.stderr.is_none() {
        null = Some(open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).step(STEP, "/dev/null")?);
    }
    let [Some(stdin), Some(stdout), Some(stderr)] =
        [&inherited.stdin, &inherited.stdout, &inherited.stderr].map(|pipe| pipe.as_ref().or(null.as_ref()))
    else {
        return Err(Failure::surroundings(STEP, "/dev/null", Errno::BADF));
    };
    for pipe in [&inherited.stdin, &inherited.stdout, &inherited.stderr].into_iter().flatten() {
        own(pipe, user).step(STEP, "pipe")?;
    }
    replace_standard_descriptors(stdin, stdout, stderr).step(STEP, "pipe")
}

fn own(stream: &OwnedFd, user: u32) -> Result<(), Errno> {
    if user == 0 { Ok(()) } else { fchown(stream, Some(Uid::from_raw(user)), None) }
}

/// A new pseudo-terminal of this `/dev/pts`: master and slave.
fn open_terminal(size: WindowSize) -> Result<(OwnedFd, OwnedFd), Errno> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let master = open("/dev/pts/ptmx", flags, Mode::empty())?;
    unlockpt(&master)?;
    let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    tcsetwinsize(&master, window(size))?;
    Ok((master, slave))
}

/// The kernel's form of a size.
pub(super) fn window(size: WindowSize) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// Drops to the user with its groups; root keeps all capabilities.
pub(super) fn become_user(identity: &Identity) -> Result<(), Failure> {
    const STEP: &str = "become user";
    let files = Rlimit { current: Some(1024), maximum: Some(512 << 10) };
    setrlimit(Resource::Nofile, files).step(STEP, "limit of open files")?;
    umask(Mode::from_raw_mode(0o022));
    let groups: Vec<Gid> = identity.groups.iter().map(|&group| Gid::from_raw(group)).collect();
    set_thread_groups(&groups).step(STEP, "groups")?;
    if identity.group != 0 {
        set_thread_gid(Gid::from_raw(identity.group)).step(STEP, "group")?;
    }
    if identity.user != 0 {
        // As in a container: the boundary is not at port 1024, and nobody else could use it.
        let _ = write_file("/proc/sys/net/ipv4/ip_unprivileged_port_start", b"0");
        set_thread_uid(Uid::from_raw(identity.user)).step(STEP, "user")?;
    }
    Ok(())
}

/// Becomes `command`, looked up in `path`.
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

/// Becomes the small init, which is told which file `command` is.
fn execute_in_between(
    own_program: &OwnedFd,
    command: &str,
    path: &str,
    arguments: &StringArray,
    environment: &StringArray,
) -> Result<Infallible, Failure> {
    let file = executable::find(command, path, |file| can_execute(file).map_err(Errno::raw_os_error))?;
    let mut strings: Vec<CString> = [between::NAME.into(), file].into();
    strings.extend_from_slice(arguments.strings());
    let errno = execute_descriptor(own_program.as_fd(), &StringArray::new(strings), environment);
    Err(Failure::surroundings("execute", "the init between PID 1 and the workload", errno))
}

/// `file`, if `execve` would not refuse it at first sight.
fn can_execute(file: &str) -> Result<CString, Errno> {
    accessat(CWD, file, Access::EXEC_OK, AtFlags::EACCESS)?;
    if !rustix::fs::FileType::from_raw_mode(stat(file)?.st_mode).is_file() {
        return Err(Errno::ACCESS);
    }
    CString::new(file).map_err(|_| Errno::NOENT)
}
