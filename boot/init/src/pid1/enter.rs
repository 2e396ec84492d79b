// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The workload's process from its run specification to `execve`: its files, its mounts, its user. It runs in the
//! workload's namespaces.

use super::etc::{EtcFiles, add_authorized_keys};
use super::failure::{Failure, Step};
use super::files::make_directories;
use super::launch::{Channel, ChildPipes, connect_streams, execute_command, find_user, string_array};
use super::privileges::become_user;
use super::staged_mounts::PlacedMounts;
use super::volumes::OpenVolume;
use super::{mounts, volumes};
use crate::freestanding::system_call::{StringArray, execute_descriptor};
use crate::tini;
use alloc::ffi::CString;
use alloc::format;
use alloc::vec::Vec;
use core::convert::Infallible;
use guest_init::{environment, executable};
use guest_protocol::run_spec::{RunSpec, ShareMount, TmpfsMount, Upper, WindowSize};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, accessat, open, stat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount_bind, mount_remount};
use rustix::process::{chdir, setsid};

/// Becomes the workload of `spec`, in whose root it is. Returns only if a step fails.
pub(crate) fn enter(
    spec: &RunSpec,
    placed: PlacedMounts,
    channel: &Channel,
    pipes: &ChildPipes,
) -> Result<Infallible, Failure> {
    let (etc, own_program, volumes) = placed.leave_pid1(|| {
        let etc = EtcFiles::prepare(spec)?;
        let own_program = if spec.init { Some(open_own_program()?) } else { None };
        Ok((etc, own_program, volumes::open_all(&spec.volumes)?))
    })?;
    placed.adapt(spec)?;
    if spec.system.is_some() {
        mounts::mount_for_system()?;
    }
    etc.place()?;
    add_authorized_keys(&spec.authorized_keys)?;
    if !spec.hostname.is_empty() {
        rustix::system::sethostname(spec.hostname.as_bytes()).step("set host name", &spec.hostname)?;
    }
    let identity = find_user(&spec.user, &spec.attributes.groups)?;
    mount_in_order(&volumes, &spec.tmpfs, &spec.shares)?;
    enter_working_directory(&spec.working_directory)?;
    if spec.root.read_only && spec.root.upper != Upper::None {
        mounts::make_root_read_only()?;
    }
    let environment = environment::complete(&spec.environment, &identity.home, spec.terminal.is_some());
    let (arguments, environment) = (string_array(&spec.arguments)?, string_array(&environment)?);

    setsid().step("start session", "new session")?;
    // An init opens, resets and hangs up /dev/console, so that must be a terminal for any streams
    // of the host.
    let console = spec.system.map(|_| WindowSize::default());
    let terminal = spec.terminal.or(console);
    // The console belongs to the sessions that log in on it, not to their init.
    connect_streams(terminal, spec.system.is_none(), identity.user, channel, pipes)?;
    if terminal.is_some() {
        mount_bind("/dev/pts/0", "/dev/console").step("connect streams", "/dev/console")?;
    }
    if spec.system.is_some() {
        mounts::share_mounts()?;
    }
    become_user(&identity, &spec.attributes, &spec.seccomp)?;
    let path = environment::value(&spec.environment, "PATH").unwrap_or(executable::DEFAULT_PATH);
    let command = spec.arguments.first().map_or("", |command| &**command);
    match own_program {
        None => execute_command(command, path, &arguments, &environment),
        Some(own_program) => execute_tini(&own_program, command, path, &arguments, &environment),
    }
}

/// Opens this file, the small init of `--init`, through a mount of the initramfs that allows its
/// execution. That is this mount namespace's own, and the workload's root is about to cover it.
fn open_own_program() -> Result<OwnedFd, Failure> {
    const STEP: &str = "open the small init";
    mount_remount("/", MountFlags::BIND, c"").step(STEP, "/")?;
    open("/init", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).step(STEP, "/init")
}

/// A mount that the user adds to the root.
enum AddedMount<'a> {
    Volume(&'a OpenVolume<'a>),
    Tmpfs(&'a TmpfsMount),
    Share(&'a ShareMount),
}

/// Mounts what the user adds to the root, so that a directory's mount comes before those below it.
fn mount_in_order(volumes: &[OpenVolume<'_>], tmpfs: &[TmpfsMount], shares: &[ShareMount]) -> Result<(), Failure> {
    let volumes = volumes.iter().map(AddedMount::Volume);
    let others = tmpfs.iter().map(AddedMount::Tmpfs).chain(shares.iter().map(AddedMount::Share));
    let mut mounts: Vec<_> = volumes.chain(others).collect();
    mounts.sort_by_key(|mount| {
        let path = match mount {
            AddedMount::Volume(volume) => volume.path(),
            AddedMount::Tmpfs(tmpfs) => &tmpfs.path,
            AddedMount::Share(share) => &share.path,
        };
        path.split('/').filter(|part| !part.is_empty() && *part != ".").count()
    });
    mounts.iter().try_for_each(|mount| match mount {
        AddedMount::Volume(volume) => volume.mount(),
        AddedMount::Tmpfs(tmpfs) => mounts::mount_tmpfs(tmpfs),
        AddedMount::Share(share) => mounts::mount_share(share),
    })
}

fn enter_working_directory(path: &str) -> Result<(), Failure> {
    let path = format!("/{}", path.trim_start_matches('/'));
    let outcome = match chdir(&*path) {
        Err(Errno::NOENT) => make_directories(&path).and_then(|()| chdir(&*path)),
        outcome => outcome,
    };
    outcome.map_err(|errno| Failure::configuration("enter working directory", path).with_errno(errno))
}

/// Executes the small init, which gets the file that `command` resolves to.
fn execute_tini(
    own_program: &OwnedFd,
    command: &str,
    path: &str,
    arguments: &StringArray,
    environment: &StringArray,
) -> Result<Infallible, Failure> {
    let file = executable::find(command, path, |file| check_executable(file).map_err(Errno::raw_os_error))?;
    let mut strings: Vec<CString> = [tini::NAME.into(), file].into();
    strings.extend_from_slice(arguments.strings());
    let errno = execute_descriptor(own_program.as_fd(), &StringArray::new(strings), environment);
    Err(Failure::setup("execute", "the small init of --init", errno))
}

/// Returns `file` unless `execve` is certain to reject it.
pub(super) fn check_executable(file: &str) -> Result<CString, Errno> {
    accessat(CWD, file, Access::EXEC_OK, AtFlags::EACCESS)?;
    if !FileType::from_raw_mode(stat(file)?.st_mode).is_file() {
        return Err(Errno::ACCESS);
    }
    CString::new(file).map_err(|_| Errno::NOENT)
}
