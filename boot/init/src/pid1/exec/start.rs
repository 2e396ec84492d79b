// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Starting a process beside the workload: in its namespaces, in a control group next to its own,
//! by the same rules for user, working directory, environment and `PATH`.
//!
//! A process can only be born in a PID namespace, so PID 1 joins the workload's for its children
//! during the fork, and then returns to its own. The child joins the other namespaces itself.
//! Entering the mount namespace leads to its root, the one that was moved over the initramfs.

use super::super::child::{become_user, connect_streams, execute_command, find_user, string_array};
use super::super::failure::{Failure, Step};
use super::super::launch::{Channel, ChildPipes, Launch, launch, make_pipes};
use alloc::format;
use core::convert::Infallible;
use guest_init::{environment, executable};
use guest_protocol::exec::ExecSpec;
use guest_protocol::run_spec::RunSpec;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::process::{Pid, PidfdFlags, chdir, getpid, pidfd_open, setsid};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

const STEP: &str = "start process";
/// A client, a health check or a probe waits for this.
const START_TIMEOUT_MS: u64 = 30_000;

/// Forks the process of `spec` beside the workload whose pidfd is `workload` and which runs as
/// `defaults`.
pub(super) fn start(
    spec: &ExecSpec,
    defaults: &RunSpec,
    workload: BorrowedFd<'_>,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<(Pid, OwnedFd, Launch), Failure> {
    let has_pipes = spec.terminal.is_none() && !spec.detached;
    let pipes = if has_pipes { Some(make_pipes(spec.stdin)?) } else { None };

    let own = pidfd_open(getpid(), PidfdFlags::empty()).step(STEP, "PID 1")?;
    let fork_into = |process| move_into_thread_name_spaces(process, ThreadNameSpaceType::PROCESS_ID);
    // The first process of a namespace that is ending lets no other in.
    fork_into(workload).map_err(|errno| Failure::configuration(STEP, "the workload has ended").with_errno(errno))?;
    let child = launch(0, cgroup, pipes, &[workload], START_TIMEOUT_MS, |channel, pipes| {
        enter(spec, defaults, workload, channel, pipes)
    });
    fork_into(own.as_fd()).step(STEP, "PID 1")?;
    child
}

/// Becomes the process of `spec`. Returns only if a step fails.
fn enter(
    spec: &ExecSpec,
    defaults: &RunSpec,
    workload: BorrowedFd<'_>,
    channel: &Channel,
    pipes: &ChildPipes,
) -> Result<Infallible, Failure> {
    let namespaces = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION;
    move_into_thread_name_spaces(workload, namespaces).step(STEP, "namespaces of the workload")?;
    // A kernel without control groups has no such namespace.
    let _ = move_into_thread_name_spaces(workload, ThreadNameSpaceType::CONTROL_GROUP);
    let identity = find_user(if spec.user.is_empty() { &defaults.user } else { &spec.user })?;
    let directory = [&spec.working_directory, &defaults.working_directory].into_iter().find(|path| !path.is_empty());
    let directory = format!("/{}", directory.map_or("", |path| path.trim_start_matches('/')));
    chdir(&*directory)
        .map_err(|errno| Failure::configuration("enter working directory", directory).with_errno(errno))?;
    let variables = environment::overlaid(&defaults.environment, &spec.environment);
    let path = environment::value(&variables, "PATH").unwrap_or(executable::DEFAULT_PATH);
    let complete = environment::complete(&variables, &identity.home, spec.terminal.is_some());
    let (arguments, environment) = (string_array(&spec.arguments)?, string_array(&complete)?);

    setsid().step("start session", "new session")?;
    connect_streams(spec.terminal, true, identity.user, channel, pipes)?;
    become_user(&identity)?;
    let command = spec.arguments.first().map_or("", |command| &**command);
    execute_command(command, path, &arguments, &environment)
}
