// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One process beside the workload: its start, its streams, its end.
//!
//! It runs in the workload's namespaces, in a control group next to its own, by the same rules for
//! user, working directory, environment and `PATH`. A process can only be born in a PID namespace,
//! so PID 1 joins the workload's for its children during the fork, and then returns to its own. The
//! child joins the other namespaces itself. Entering the mount namespace leads to its root, the one
//! that was moved over the initramfs.
//!
//! Output is read only as far as the host has granted credit for it, and input is kept only as far
//! as the host was granted credit, so a process cannot fill PID 1's memory or stop anything but
//! itself.
//!
//! Its end is the end of that one process. What its pipes hold then is still sent; descendants that
//! write later get `EPIPE`.

use super::super::failure::{Failure, Step};
use super::super::launch::{
    Channel, ChildPipes, Launch, Pipes, Streams, connect_streams, execute_command, find_user, launch, make_pipes,
    string_array, winsize,
};
use super::super::privileges::become_user;
use super::super::streams::{END_OF_FILE, PolledFd};
use super::{ExecContext, STEP};
use crate::freestanding::system_call::{milliseconds_since_boot, send_signal};
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use core::convert::Infallible;
use guest_init::{environment, executable};
use guest_protocol::exec::{ExecReport, ExecRequest, ExecSpec, OUTPUT_OVERHEAD, OUTPUT_WINDOW, output_cost};
use guest_protocol::protocol::WorkloadEnd;
use guest_protocol::run_spec::{RunSpec, WindowSize};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::{Errno, fcntl_dupfd_cloexec, read, write};
use rustix::process::{Pid, PidfdFlags, WaitOptions, chdir, getpid, pidfd_open, setsid, waitpid};
use rustix::termios::tcsetwinsize;
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

/// A client, a health check or a probe waits for this.
const START_TIMEOUT_MS: u64 = 30_000;
/// Bytes per `Output` message.
const OUTPUT_BUF_SIZE: usize = 16 << 10;
const SIGHUP: u8 = 1;
const SIGKILL: u8 = 9;
const SIGCONT: u8 = 18;
const MAX_SIGNAL: u8 = 64;

/// The low bits of a token select the descriptor.
pub(super) const TOKEN_BITS: u32 = 3;
const PIDFD: u64 = 0;
const STDIN: u64 = 1;
const STDOUT: u64 = 2;
const STDERR: u64 = 3;
const LAUNCH: u64 = 4;

pub(super) struct Process {
    pid: Pid,
    pidfd: OwnedFd,
    token: u64,
    /// Until the program is executed.
    launch: Option<Launch>,
    /// Signals to deliver once the program is executed: bit n - 1 is signal n.
    pending_signals: u64,
    /// Size of the terminal to set once the program is executed.
    pending_size: Option<WindowSize>,
    has_input: bool,
    /// The client is gone: streams are not connected any more.
    hung_up: bool,
    terminal: bool,
    stdin: Option<PolledFd>,
    /// Received and not yet written.
    input: Vec<u8>,
    /// The host sends no more input.
    input_ended: bool,
    stdout: Option<PolledFd>,
    stderr: Option<PolledFd>,
    /// Number of bytes of output that the host still accepts.
    credit: u32,
    end: Option<WorkloadEnd>,
}

impl Process {
    /// Forks the process of `spec`, in the control group `cgroup`, and adds it to the event loop. Its tokens are `token` with
    /// the low bits set.
    pub(super) fn start(
        spec: &ExecSpec,
        context: &ExecContext<'_>,
        cgroup: Option<BorrowedFd<'_>>,
        token: u64,
    ) -> Result<Self, Failure> {
        let workload = context.workload.ok_or_else(|| Failure::configuration(STEP, "the workload has ended"))?;
        let (pid, pidfd, launch) = fork(spec, context.spec, workload, cgroup)?;
        Self::new(pid, pidfd, launch, spec, token, context.epoll).step(STEP, "event loop")
    }

    fn new(
        pid: Pid,
        pidfd: OwnedFd,
        launch: Launch,
        spec: &ExecSpec,
        token: u64,
        epoll: &OwnedFd,
    ) -> Result<Self, Errno> {
        epoll::add(epoll, &pidfd, EventData::new_u64(token | PIDFD), EventFlags::IN)?;
        epoll::add(epoll, launch.socket(), EventData::new_u64(token | LAUNCH), EventFlags::IN)?;
        Ok(Self {
            pid,
            pidfd,
            token,
            launch: Some(launch),
            pending_signals: 0,
            pending_size: None,
            has_input: spec.stdin,
            hung_up: false,
            terminal: spec.terminal.is_some(),
            stdin: None,
            input: Vec::new(),
            input_ended: false,
            stdout: None,
            stderr: None,
            credit: OUTPUT_WINDOW,
            end: None,
        })
    }

    pub(super) fn on_event(&mut self, token: u64, flags: EventFlags, epoll: &OwnedFd) -> Result<(), Errno> {
        let polled = match token & ((1 << TOKEN_BITS) - 1) {
            PIDFD => return self.reap(epoll),
            STDIN => &mut self.stdin,
            STDOUT => &mut self.stdout,
            STDERR => &mut self.stderr,
            // `pump` reads the outcome of the launch.
            _ => return Ok(()),
        };
        if let Some(polled) = polled {
            polled.on_event(flags);
        }
        Ok(())
    }

    fn reap(&mut self, epoll: &OwnedFd) -> Result<(), Errno> {
        let Some((_, status)) = waitpid(Some(self.pid), WaitOptions::empty())? else { return Ok(()) };
        epoll::delete(epoll, &self.pidfd)?;
        self.end = Some(match (status.exit_status(), status.terminating_signal()) {
            (Some(status), _) => WorkloadEnd::Exited(status as u8),
            (None, signal) => WorkloadEnd::Signalled { signal: signal.unwrap_or(0) as u8, out_of_memory: false },
        });
        // Its last output is in the pipes, whether the event has arrived or not.
        for output in [&mut self.stdout, &mut self.stderr].into_iter().flatten() {
            output.on_event(EventFlags::IN);
        }
        Ok(())
    }

    pub(super) fn handle_request(&mut self, request: ExecRequest) {
        match request {
            ExecRequest::Input(bytes) => self.input.extend_from_slice(&bytes),
            ExecRequest::InputEnd => self.input_ended = true,
            ExecRequest::Signal(signal @ 1..=MAX_SIGNAL) => self.signal(signal),
            ExecRequest::Resize(size) => self.resize(size),
            ExecRequest::Credit(bytes) => self.credit = self.credit.saturating_add(bytes),
            ExecRequest::HangUp => {
                self.hung_up = true;
                self.close_streams();
                self.signal(SIGHUP);
                // A stopped process would not handle it.
                self.signal(SIGCONT);
            }
            // No such signal; or it is running already.
            ExecRequest::Signal(_) | ExecRequest::Start(_) => {}
        }
    }

    fn signal(&mut self, signal: u8) {
        if self.launch.is_some() && signal != SIGKILL {
            self.pending_signals |= 1 << (signal - 1);
        } else if self.end.is_none() {
            // The process may have ended already.
            let _ = send_signal(self.pidfd.as_fd(), signal);
        }
    }

    fn resize(&mut self, size: WindowSize) {
        if self.launch.is_some() {
            self.pending_size = Some(size);
        } else if let Some(master) = self.stdout.as_ref().filter(|_| self.terminal) {
            let _ = tcsetwinsize(&master.descriptor, winsize(size));
        }
    }

    fn close_streams(&mut self) {
        (self.stdin, self.stdout, self.stderr) = (None, None, None);
        self.input.clear();
    }

    /// Kills the process; nothing more of it is reported.
    pub(super) fn abandon(&mut self) {
        self.launch = None;
        self.close_streams();
        self.signal(SIGKILL);
    }

    /// When the launch must have succeeded.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.launch.as_ref().map(Launch::deadline)
    }

    /// Moves bytes and passes reports to `report`. After `Failed` or `Ended` the process must not
    /// be pumped again.
    pub(super) fn pump(&mut self, epoll: &OwnedFd, mut report: impl FnMut(ExecReport)) -> Result<(), Errno> {
        if let Some(launch) = &mut self.launch {
            let late = milliseconds_since_boot() >= launch.deadline();
            match launch.outcome().or_else(|| late.then(|| Err(launch.timed_out()))) {
                None => return Ok(()),
                Some(Err(failure)) => {
                    epoll::delete(epoll, launch.socket())?;
                    self.abandon();
                    report(failure.into());
                    return Ok(());
                }
                Some(Ok(())) => {
                    self.on_executed(epoll)?;
                    report(ExecReport::Started);
                }
            }
        }
        self.pump_input(epoll, &mut report)?;
        for (output, stderr) in [(&mut self.stdout, false), (&mut self.stderr, true)] {
            read_output(output, stderr, &mut self.credit, &mut report)?;
        }
        let drained = |output: &Option<PolledFd>| output.as_ref().is_none_or(|output| !output.is_readable());
        if let Some(end) = self.end
            && drained(&self.stdout)
            && drained(&self.stderr)
        {
            report(ExecReport::Ended(end));
        }
        Ok(())
    }

    /// Adds the streams of the executed program to the event loop, and delivers the pending
    /// signals.
    fn on_executed(&mut self, epoll: &OwnedFd) -> Result<(), Errno> {
        let Some(launch) = self.launch.take() else { return Ok(()) };
        // Children that were forked meanwhile hold copies of it until they close them.
        epoll::delete(epoll, launch.socket())?;
        let source = |descriptor: OwnedFd, kind| {
            fcntl_setfl(&descriptor, OFlags::NONBLOCK)?;
            PolledFd::new(descriptor, self.token | kind, EventFlags::IN, epoll)
        };
        let sink = |descriptor| PolledFd::new(descriptor, self.token | STDIN, EventFlags::OUT, epoll);
        match launch.into_streams() {
            _ if self.hung_up => {}
            Streams::None => {}
            Streams::Pipes(Pipes { stdin, stdout, stderr }) => {
                let streams = (stdin.map(sink).transpose()?, source(stdout, STDOUT)?, source(stderr, STDERR)?);
                (self.stdin, self.stdout, self.stderr) = (streams.0, Some(streams.1), Some(streams.2));
            }
            Streams::Terminal(master) => {
                let stdin = if self.has_input { Some(sink(fcntl_dupfd_cloexec(&master, 0)?)?) } else { None };
                (self.stdin, self.stdout) = (stdin, Some(source(master, STDOUT)?));
            }
        }
        if let Some(size) = self.pending_size.take() {
            self.resize(size);
        }
        for signal in 1..=MAX_SIGNAL {
            if self.pending_signals & (1 << (signal - 1)) != 0 {
                self.signal(signal);
            }
        }
        Ok(())
    }

    fn pump_input(&mut self, epoll: &OwnedFd, report: &mut impl FnMut(ExecReport)) -> Result<(), Errno> {
        while let Some(sink) = &mut self.stdin {
            if self.input.is_empty() {
                if self.input_ended {
                    self.input_ended = false;
                    if self.terminal {
                        self.input.push(END_OF_FILE);
                        continue;
                    }
                    self.stdin = None;
                }
                return Ok(());
            }
            if !sink.is_writable() {
                return Ok(());
            }
            match write(&sink.descriptor, &self.input) {
                Ok(written) => {
                    self.input.drain(..written);
                    report(ExecReport::Credit(written as u32));
                }
                Err(Errno::AGAIN) => sink.clear_writable(epoll)?,
                Err(Errno::PIPE | Errno::IO) => self.stdin = None,
                Err(errno) => return Err(errno),
            }
        }
        // Without a reader the rest is discarded.
        if !self.input.is_empty() {
            report(ExecReport::Credit(self.input.len() as u32));
            self.input.clear();
        }
        Ok(())
    }

    pub(super) fn is_reaped(&self) -> bool {
        self.end.is_some()
    }

    /// Drops output that the host does not take: the machine is about to end.
    pub(super) fn discard_output(&mut self) {
        (self.stdout, self.stderr) = (None, None);
    }
}

fn read_output(
    output: &mut Option<PolledFd>,
    stderr: bool,
    credit: &mut u32,
    report: &mut impl FnMut(ExecReport),
) -> Result<(), Errno> {
    while let Some(source) = output
        && source.is_readable()
        && *credit > OUTPUT_OVERHEAD
    {
        let mut bytes = vec![0; OUTPUT_BUF_SIZE.min((*credit - OUTPUT_OVERHEAD) as usize)];
        match read(&source.descriptor, &mut bytes[..]) {
            // A terminal's master reads EIO once no process has the terminal open.
            Ok(0) | Err(Errno::IO) => *output = None,
            Ok(length) => {
                bytes.truncate(length);
                *credit -= output_cost(length);
                report(ExecReport::Output { stderr, bytes });
            }
            Err(Errno::AGAIN) => source.clear_readable(),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Forks the process of `spec` beside the workload whose pidfd is `workload` and which runs as
/// `defaults`.
fn fork(
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
        enter(spec, defaults, workload, channel, &pipes)
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
    if spec.writes_files {
        setsid().step("start session", "new session")?;
        connect_streams(None, true, 0, channel, pipes)?;
        channel.report_started().step(STEP, "socket")?;
        super::write_files::run();
    }
    let attributes = spec.attributes.as_ref().unwrap_or(&defaults.attributes);
    let user = if spec.user.is_empty() { &defaults.user } else { &spec.user };
    let identity = find_user(user, &attributes.groups)?;
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
    become_user(&identity, attributes, &defaults.seccomp)?;
    let command = spec.arguments.first().map_or("", |command| &**command);
    execute_command(command, path, &arguments, &environment)
}
