// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The event loop between the workload's start and its end, with the control port
//! that it serves. It moves streams, handles the host's
//! messages, runs probes, and detects the end. Every turn does a bounded amount of each.
//!
//! Every process of the workload is in its PID namespace, where orphans become children of the
//! namespace's PID 1, and the kernel ends them all with it. So PID 1 of the machine has the
//! workload as its only child, and one more for each process that it starts beside it. The
//! workload's end is complete only when those are reaped.

use super::dhcp::Dhcp;
use super::exec::{ExecContext, Execs, Owner};
use super::failure::{Failure, Step};
use super::launch::{Pipes, Streams, timespec, winsize};
use super::probes::Probes;
use super::scratch::Scratch;
use super::snapshot;
use super::streams::{Input, Output, PolledFd, Turn};
use super::workload::{Workload, ran_out_of_memory};
use crate::freestanding::system_call::{milliseconds_since_boot, send_signal};
use core::mem::MaybeUninit;
use guest_protocol::exec::{ExecReport, ExecRequest};
use guest_protocol::protocol::{FrameReader, MAX_TO_GUEST, ToGuest, ToHost, WorkloadEnd, encode};
use guest_protocol::run_spec::RunSpec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::{Errno, fcntl_dupfd_cloexec, read, write};
use rustix::process::{Pid, WaitOptions, waitpid};
use rustix::termios::tcsetwinsize;

const STEP: &str = "relay streams";
const CONTROL_STEP: &str = "talk to the host";
/// The driver returns at most one buffer of a page at a time.
const READ_BUF_SIZE: usize = 4096;

const CONTROL: u64 = 0;
const WORKLOAD: u64 = 1;
const STDIO_PORT: u64 = 2;
const STDERR_PORT: u64 = 3;
const STDIN: u64 = 4;
const STDOUT: u64 = 5;
const STDERR: u64 = 6;
const NOTIFY: u64 = 7;
const DHCP: u64 = 8;
const SCRATCH: u64 = 9;

const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGKILL: i32 = 9;
const MAX_SIGNAL: u8 = 64;

/// Descriptors of the loop besides those of the workload and the control port.
pub(crate) struct Ports {
    pub(crate) stdio: OwnedFd,
    pub(crate) stderr: OwnedFd,
    /// The socket of `NOTIFY_SOCKET`.
    pub(crate) notify: Option<OwnedFd>,
    pub(crate) dhcp: Option<Dhcp>,
}

struct Relay<'a> {
    epoll: OwnedFd,
    /// With the identity that a restored machine has taken on.
    spec: RunSpec,
    control: &'a mut Control,
    pid: Pid,
    pidfd: OwnedFd,
    terminal: bool,
    stdio_port: PolledFd,
    stderr_port: PolledFd,
    input: Option<Input>,
    output: Output,
    error: Option<Output>,
    end: Option<WorkloadEnd>,
    execs: Execs,
    probes: Probes,
    dhcp: Option<Dhcp>,
    scratch: Scratch,
}

/// Returns how the workload ended, once all of its output is written to the ports.
pub(crate) fn run(workload: Workload, spec: &RunSpec, control: &mut Control, ports: Ports) -> Result<ToHost, Failure> {
    let mut relay = Relay::new(workload, spec, control, ports).step(STEP, "event loop")?;
    // Messages that arrived together with an earlier one cause no further event.
    relay.handle_messages()?;
    loop {
        let turn = relay.pump().step(STEP, "streams")?;
        let turn = turn.and(relay.pump_execs()?);
        relay.serve_dhcp()?;
        if let Some(end) = relay.finished() {
            relay.execs.finish(&relay.epoll, relay.control)?;
            relay.scratch.finish(&relay.spec.root);
            relay.dhcp.iter_mut().for_each(Dhcp::release);
            let stderr_bytes = relay.error.as_ref().map_or(0, |error| error.bytes);
            return Ok(ToHost::Ended { end, stdout_bytes: relay.output.bytes, stderr_bytes });
        }
        relay.wait(turn)?;
    }
}

impl<'a> Relay<'a> {
    fn new(workload: Workload, spec: &RunSpec, control: &'a mut Control, ports: Ports) -> Result<Self, Errno> {
        let Ports { stdio, stderr, notify, dhcp } = ports;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, control.as_fd(), EventData::new_u64(CONTROL), EventFlags::IN)?;
        epoll::add(&epoll, &workload.pidfd, EventData::new_u64(WORKLOAD), EventFlags::IN)?;
        if let Some(dhcp) = &dhcp {
            epoll::add(&epoll, dhcp, EventData::new_u64(DHCP), EventFlags::IN)?;
        }
        let polled = |descriptor, token, interest| PolledFd::new(descriptor, token, interest, &epoll);
        let sink = |descriptor| polled(descriptor, STDIN, EventFlags::OUT);
        let terminal = matches!(workload.streams, Streams::Terminal(_));
        let (input, output, error) = match workload.streams {
            Streams::Pipes(Pipes { stdin, stdout, stderr }) => (
                stdin.map(sink).transpose()?,
                Output::from_pipe(polled(stdout, STDOUT, EventFlags::IN)?),
                Some(Output::from_pipe(polled(stderr, STDERR, EventFlags::IN)?)),
            ),
            Streams::Terminal(master) => {
                let input = if spec.stdin { Some(sink(fcntl_dupfd_cloexec(&master, 0)?)?) } else { None };
                // The console of a system is a terminal even if the host's streams are pipes.
                let lines = spec.terminal.is_none();
                (input, Output::from_terminal(polled(master, STDOUT, EventFlags::IN)?, lines), None)
            }
            Streams::None => return Err(Errno::BADF),
        };
        let interest = if input.is_some() { EventFlags::IN } else { EventFlags::empty() };
        Ok(Self {
            stdio_port: polled(stdio, STDIO_PORT, interest)?,
            stderr_port: polled(stderr, STDERR_PORT, EventFlags::empty())?,
            input: input.map(|sink| Input::new(sink, terminal)),
            output,
            error,
            end: None,
            pid: workload.pid,
            pidfd: workload.pidfd,
            terminal,
            execs: Execs::default(),
            probes: Probes::new(spec, notify, NOTIFY, &epoll)?,
            dhcp,
            scratch: Scratch::default(),
            spec: spec.clone(),
            control,
            epoll,
        })
    }

    fn pump(&mut self) -> Result<Turn, Errno> {
        let mut turn = self.output.pump(&mut self.stdio_port, &self.epoll)?;
        if let Some(error) = &mut self.error {
            turn = turn.and(error.pump(&mut self.stderr_port, &self.epoll)?);
        }
        if let Some(input) = &mut self.input {
            turn = turn.and(input.pump(&mut self.stdio_port, &self.epoll)?);
        }
        Ok(turn)
    }

    /// Moves the streams of the processes beside the workload, and runs the probes that are due.
    fn pump_execs(&mut self) -> Result<Turn, Failure> {
        let reports = self.execs.pump(&self.epoll, self.control)?;
        // A report may grant its process credit for more output.
        let turn = if reports.is_empty() { Turn::Done } else { Turn::More };
        for (owner, report) in reports {
            self.probes.on_report(owner, report, &mut self.execs, self.control)?;
        }
        if self.end.is_none() {
            let context = ExecContext { spec: &self.spec, workload: Some(self.pidfd.as_fd()), epoll: &self.epoll };
            self.probes.poll(&mut self.execs, &context, self.control)?;
        }
        Ok(turn)
    }

    /// Keeps the addresses, and reports those that have changed.
    fn serve_dhcp(&mut self) -> Result<(), Failure> {
        let Some(dhcp) = &mut self.dhcp else { return Ok(()) };
        if dhcp.serve() { self.control.send(&ToHost::Addresses(dhcp.addresses())) } else { Ok(()) }
    }

    /// The end of the workload, once all of its output is written.
    fn finished(&self) -> Option<WorkloadEnd> {
        let drained = |output: &Output| output.source.is_none();
        self.end.filter(|_| drained(&self.output) && self.error.as_ref().is_none_or(drained))
    }

    /// Waits for events and handles them. After an incomplete turn it does not wait.
    fn wait(&mut self, turn: Turn) -> Result<(), Failure> {
        let mut events = [MaybeUninit::<Event>::uninit(); 8];
        let timeout = match turn {
            Turn::More => Some(timespec(0)),
            Turn::Done => {
                let probes = self.probes.due().filter(|_| self.end.is_none());
                let dhcp = self.dhcp.as_ref().and_then(Dhcp::due);
                let due = probes.into_iter().chain(self.execs.due()).chain(dhcp).min();
                due.map(|due| timespec(due.saturating_sub(milliseconds_since_boot())))
            }
        };
        let (events, _) = match epoll::wait(&self.epoll, &mut events, timeout.as_ref()) {
            Err(Errno::INTR) => return Ok(()),
            outcome => outcome.step(STEP, "event loop")?,
        };
        for event in events {
            let (token, flags) = (event.data.u64(), event.flags);
            let on_event = |polled: Option<&mut PolledFd>| {
                if let Some(polled) = polled {
                    polled.on_event(flags);
                }
            };
            match token {
                CONTROL => {
                    self.control.fill()?;
                    self.handle_messages()?;
                }
                WORKLOAD => self.reap().step(STEP, "status of the workload")?,
                STDIO_PORT => on_event(Some(&mut self.stdio_port)),
                STDERR_PORT => on_event(Some(&mut self.stderr_port)),
                STDIN => on_event(self.input.as_mut().and_then(|input| input.sink.as_mut())),
                STDOUT => on_event(self.output.source.as_mut()),
                NOTIFY => self.probes.read_notifications(),
                // Each turn serves it.
                DHCP => {}
                SCRATCH => {
                    if let Some(outcome) = self.scratch.on_event(&self.epoll) {
                        self.control.send(&ToHost::ScratchFrozen(outcome))?;
                    }
                }
                Execs::FIRST_TOKEN.. => self.execs.on_event(token, flags, &self.epoll)?,
                _ => on_event(self.error.as_mut().and_then(|error| error.source.as_mut())),
            }
        }
        Ok(())
    }

    /// Takes the status of the workload's process.
    fn reap(&mut self) -> Result<(), Errno> {
        let Some((_, status)) = waitpid(Some(self.pid), WaitOptions::empty())? else { return Ok(()) };
        epoll::delete(&self.epoll, &self.pidfd)?;
        self.output.expect_end();
        self.end = Some(match (status.exit_status(), status.terminating_signal()) {
            (Some(status), _) => WorkloadEnd::Exited(status as u8),
            // PID 1 of a namespace ignores these two signals: only reboot(2) in the namespace ends
            // it this way.
            (None, Some(SIGHUP)) => WorkloadEnd::Reboot,
            (None, Some(SIGINT)) => WorkloadEnd::Poweroff,
            (None, signal) => {
                let signal = signal.unwrap_or(0);
                let out_of_memory = signal == SIGKILL && ran_out_of_memory();
                WorkloadEnd::Signalled { signal: signal as u8, out_of_memory }
            }
        });
        Ok(())
    }

    /// Handles the host's messages that are complete.
    fn handle_messages(&mut self) -> Result<(), Failure> {
        while let Some(message) = self.control.next()? {
            match message {
                ToGuest::Signal(signal @ 1..=MAX_SIGNAL) => {
                    // The workload may have ended already.
                    let _ = send_signal(self.pidfd.as_fd(), signal);
                }
                ToGuest::Resize(size) if self.terminal => {
                    if let Some(master) = &self.output.source {
                        let _ = tcsetwinsize(&master.descriptor, winsize(size));
                    }
                }
                ToGuest::StdinEnd { bytes } => {
                    if let Some(input) = &mut self.input {
                        input.end_after(bytes);
                    }
                }
                ToGuest::OutputClosed { stderr: true } => {
                    if let Some(error) = &mut self.error {
                        error.source = None;
                    }
                }
                ToGuest::OutputClosed { stderr: false } => {
                    self.output.source = None;
                    // A terminal is hung up when all descriptors of its master are closed.
                    if let Some(input) = self.input.as_mut().filter(|_| self.terminal) {
                        input.sink = None;
                    }
                }
                ToGuest::Exec { id, request } => self.handle_exec_request(id, request)?,
                ToGuest::Freeze => self.pause_for_snapshot()?,
                ToGuest::FreezeScratch => {
                    if let Err(detail) = self.scratch.freeze(&self.spec.root, &self.epoll, SCRATCH) {
                        self.control.send(&ToHost::ScratchFrozen(Err(detail)))?;
                    }
                }
                ToGuest::ThawScratch => self.scratch.thaw(),
                // Invalid at this time or for this workload.
                ToGuest::Signal(_)
                | ToGuest::Resize(_)
                | ToGuest::Spec(_)
                | ToGuest::Thaw
                | ToGuest::Restored(_)
                | ToGuest::TemplateStart(_)
                | ToGuest::PrepareRoot(_) => {}
            }
        }
        Ok(())
    }

    /// Stops all processes, and waits until the host has taken its snapshot or has restored it. This machine may be either.
    fn pause_for_snapshot(&mut self) -> Result<(), Failure> {
        // A copy would go on with the lease.
        let frozen = match &self.dhcp {
            Some(_) => Err("an interface has its address from DHCP".into()),
            None => snapshot::freeze(),
        };
        if let Err(detail) = frozen {
            return self.control.send(&ToHost::NotFrozen { detail });
        }
        self.control.send(&ToHost::Frozen)?;
        match self.control.receive()? {
            ToGuest::Thaw => {
                snapshot::thaw();
                Ok(())
            }
            ToGuest::Restored(identity) => {
                self.spec = snapshot::take_on(identity, &self.spec, self.pidfd.as_fd())?;
                snapshot::thaw();
                self.control.send(&ToHost::Resumed)
            }
            _ => Err(Failure::protocol("unexpected message between Frozen and Thaw")),
        }
    }

    fn handle_exec_request(&mut self, id: u32, request: ExecRequest) -> Result<(), Failure> {
        let owner = Owner::Host(id);
        let ExecRequest::Start(spec) = request else {
            self.execs.handle_request(owner, request);
            return Ok(());
        };
        let workload = self.end.is_none().then(|| self.pidfd.as_fd());
        let context = ExecContext { spec: &self.spec, workload, epoll: &self.epoll };
        match self.execs.start(owner, &spec, &context) {
            Ok(()) => Ok(()),
            Err(failure) => self.control.send(&ToHost::Exec { id, report: ExecReport::from(failure) }),
        }
    }
}

/// The control port: messages of [`guest_protocol::protocol`] in both directions.
pub(crate) struct Control {
    port: OwnedFd,
    reader: FrameReader,
}

impl Control {
    /// `port` is blocking: the first `send` waits until the host has opened its side.
    pub(crate) fn new(port: OwnedFd) -> Self {
        Self { port, reader: FrameReader::new(MAX_TO_GUEST) }
    }

    /// Sends `message`, waiting for free space if necessary.
    pub(crate) fn send(&mut self, message: &ToHost) -> Result<(), Failure> {
        let frame = encode(message);
        let mut rest = &frame[..];
        while !rest.is_empty() {
            match write(&self.port, rest) {
                Ok(written) => rest = &rest[written..],
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT)?,
                Err(errno) => return Err(Failure::setup(CONTROL_STEP, "write to the control port", errno)),
            }
        }
        Ok(())
    }

    /// For the event loop.
    pub(crate) fn set_nonblocking(&self) -> Result<(), Failure> {
        fcntl_setfl(&self.port, OFlags::NONBLOCK).step(CONTROL_STEP, "control port")
    }

    /// Waits for the next message.
    pub(crate) fn receive(&mut self) -> Result<ToGuest, Failure> {
        loop {
            if let Some(message) = self.next()? {
                return Ok(message);
            }
            if !self.fill()? {
                self.wait(PollFlags::IN)?;
            }
        }
    }

    /// Returns the next message if it is complete.
    pub(crate) fn next(&mut self) -> Result<Option<ToGuest>, Failure> {
        self.reader.next().map_err(|_| Failure::protocol("invalid message from the host"))
    }

    /// Reads once; returns false if nothing has arrived.
    pub(crate) fn fill(&mut self) -> Result<bool, Failure> {
        let mut bytes = [core::mem::MaybeUninit::<u8>::uninit(); READ_BUF_SIZE];
        match read(&self.port, &mut bytes) {
            Ok((bytes, _)) if !bytes.is_empty() => {
                self.reader.push(bytes);
                Ok(true)
            }
            Ok(_) => Err(closed()),
            Err(Errno::AGAIN) => Ok(false),
            Err(errno) => Err(Failure::setup(CONTROL_STEP, "read from the control port", errno)),
        }
    }

    fn wait(&self, flags: PollFlags) -> Result<(), Failure> {
        let mut port = [PollFd::new(&self.port, flags)];
        poll(&mut port, None).step(CONTROL_STEP, "wait for the control port")?;
        if port[0].revents().intersects(flags) { Ok(()) } else { Err(closed()) }
    }
}

fn closed() -> Failure {
    Failure::protocol("the host has closed the control port")
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.port.as_fd()
    }
}
