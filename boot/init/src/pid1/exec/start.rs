// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Starting a process beside the workload: in its namespaces, in a control group next to its own, with the same rules for
//! user, working directory, environment and `PATH`.
//!
//! A process enters a PID namespace by being born there, so PID 1 joins the workload's for the moment of the clone (only its
//! children-to-be are concerned) and goes back. The other namespaces the child joins by itself. Entering the mount
//! namespace leads to its root, the one that was moved over the initramfs.

use super::super::enter::{Inherited, become_user, connect_streams, execute_command, find_user, string_array};
use super::super::failure::{Failure, Step};
use super::super::workload::{Streams, make_pipes, streams_of};
use crate::freestanding::system_call::{clone_flags, run_in_child};
use alloc::format;
use core::convert::Infallible;
use guest_init::{environment, executable};
use guest_protocol::exec::ExecSpec;
use guest_protocol::run_spec::RunSpec;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::process::{Pid, PidfdFlags, WaitOptions, chdir, getpid, pidfd_open, setsid, waitpid};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

const STEP: &str = "start process";

/// A running process.
pub(super) struct Started {
    pub(super) pid: Pid,
    /// Becomes readable when it ends; signals are sent to it.
    pub(super) pidfd: OwnedFd,
    /// PID 1's ends of its streams; none if it is detached.
    pub(super) streams: Option<Streams>,
}

/// Starts the process of `spec` beside the workload that `workload` is the pidfd of and that runs as `defaults` says; it has
/// been executed when this returns.
pub(super) fn start(
    spec: &ExecSpec,
    defaults: &RunSpec,
    workload: BorrowedFd<'_>,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<Started, Failure> {
    let mut inherited = Inherited::default();
    let piped = spec.terminal.is_none() && !spec.detached;
    let pipes = if piped { Some(make_pipes(spec.stdin, &mut inherited)?) } else { None };

    let own = pidfd_open(getpid(), PidfdFlags::empty()).step(STEP, "PID 1")?;
    let births_in = |process| move_into_thread_name_spaces(process, ThreadNameSpaceType::PROCESS_ID);
    births_in(workload).map_err(|errno| Failure::refused(STEP, "the workload has ended", errno))?;
    let mut outcome: Option<Result<Infallible, Failure>> = None;
    let child = run_in_child(clone_flags::SHARED_FILES, cgroup, &mut || {
        outcome = Some(enter(spec, defaults, workload, &mut inherited));
    });
    births_in(own.as_fd()).step(STEP, "PID 1")?;

    // A namespace whose first process is ending has no room for another.
    let (pid, pidfd) = child.step(STEP, "new process")?;
    if let Some(Err(failure)) = outcome {
        let _ = waitpid(Some(pid), WaitOptions::empty());
        return Err(failure);
    }
    let streams = if spec.detached { None } else { Some(streams_of(pipes, inherited, spec.stdin, false)?) };
    Ok(Started { pid, pidfd, streams })
}

/// Becomes the process of `spec`. Returns only to say why it could not.
fn enter(
    spec: &ExecSpec,
    defaults: &RunSpec,
    workload: BorrowedFd<'_>,
    inherited: &mut Inherited,
) -> Result<Infallible, Failure> {
    let namespaces = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION;
    move_into_thread_name_spaces(workload, namespaces).step(STEP, "namespaces of the workload")?;
    // A kernel without control groups has no such namespace either.
    let _ = move_into_thread_name_spaces(workload, ThreadNameSpaceType::CONTROL_GROUP);
    let identity = find_user(if spec.user.is_empty() { &defaults.user } else { &spec.user })?;
    let folder = [&spec.working_directory, &defaults.working_directory].into_iter().find(|folder| !folder.is_empty());
    let folder = format!("/{}", folder.map_or("", |folder| folder.trim_start_matches('/')));
    chdir(&*folder).map_err(|errno| Failure::refused("enter working directory", folder, errno))?;
    let variables = environment::overlaid(&defaults.environment, &spec.environment);
    let path = environment::value(&variables, "PATH").unwrap_or(executable::DEFAULT_PATH);
    let complete = environment::complete(&variables, &identity.home, spec.terminal.is_some());
    let (arguments, environment) = (string_array(&spec.arguments)?, string_array(&complete)?);

    setsid().step("start session", "new session")?;
    connect_streams(spec.terminal, true, identity.user, inherited)?;
    become_user(&identity)?;
    let command = spec.arguments.first().map_or("", |command| &**command);
    execute_command(command, path, &arguments, &environment)
}
