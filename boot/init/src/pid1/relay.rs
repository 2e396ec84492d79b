// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The time between the workload's start and its end: an event loop that moves its streams, obeys the host's messages,
//! and notices the end.
//!
//! Reaping: every process of the workload is in its PID namespace, where what loses its parent becomes a child of that
//! namespace's PID 1, and the kernel ends them all with it. So PID 1 has one child, and one for each process that the host
//! starts beside it; the workload's own end is complete only when those were reaped.

use super::control::Control;
use super::enter::window;
use super::exec::{Execs, Owner};
use super::failure::{Failure, Step};
use super::probes::{Probes, Surroundings};
use super::streams::{End, Input, Output};
use super::workload::{Streams, Workload, ran_out_of_memory};
use crate::freestanding::system_call::send_signal;
use core::mem::MaybeUninit;
use guest_protocol::exec::{ExecReport, ExecRequest};
use guest_protocol::protocol::{ToGuest, ToHost, WorkloadEnd};
use guest_protocol::run_spec::RunSpec;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::{Pid, WaitOptions, waitpid};
use rustix::termios::tcsetwinsize;

const STEP: &str = "relay streams";

const CONTROL: u64 = 0;
const WORKLOAD: u64 = 1;
const STDIO_PORT: u64 = 2;
const STDERR_PORT: u64 = 3;
const STDIN: u64 = 4;
const STDOUT: u64 = 5;
const STDERR: u64 = 6;
const NOTIFY: u64 = 7;

const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGKILL: i32 = 9;
const LAST_SIGNAL: u8 = 64;

/// What the loop watches besides the workload and the control port.
pub(crate) struct Ports {
    pub(crate) stdio: OwnedFd,
    pub(crate) stderr: OwnedFd,
    /// Where the workload talks to its service manager.
    pub(crate) notify: Option<OwnedFd>,
}

struct Relay<'a> {
    epoll: OwnedFd,
    spec: &'a RunSpec,
    control: &'a mut Control,
    pid: Pid,
    pidfd: OwnedFd,
    terminal: bool,
    stdio_port: End,
    stderr_port: End,
    input: Option<Input>,
    output: Output,
    error: Option<Output>,
    end: Option<WorkloadEnd>,
    execs: Execs,
    probes: Probes,
}

/// Returns how the workload ended, once every byte that it wrote is on its way.
pub(crate) fn run(workload: Workload, spec: &RunSpec, control: &mut Control, ports: Ports) -> Result<ToHost, Failure> {
    let mut relay = Relay::new(workload, spec, control, ports).step(STEP, "event loop")?;
    // What came together with an earlier message, and will not make the port readable again.
    relay.obey()?;
    loop {
        relay.pump().step(STEP, "streams")?;
        relay.attend()?;
        if let Some(end) = relay.finished() {
            relay.execs.finish(&relay.epoll, relay.control)?;
            let stderr_bytes = relay.error.as_ref().map_or(0, |error| error.bytes);
            return Ok(ToHost::Ended { end, stdout_bytes: relay.output.bytes, stderr_bytes });
        }
        relay.wait()?;
    }
}

impl<'a> Relay<'a> {
    fn new(workload: Workload, spec: &'a RunSpec, control: &'a mut Control, ports: Ports) -> Result<Self, Errno> {
        let Ports { stdio, stderr, notify } = ports;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, control.as_fd(), EventData::new_u64(CONTROL), EventFlags::IN)?;
        epoll::add(&epoll, &workload.pidfd, EventData::new_u64(WORKLOAD), EventFlags::IN)?;
        let end = |descriptor, token, interest| End::new(descriptor, token, interest, &epoll);
        let into = |descriptor| end(descriptor, STDIN, EventFlags::OUT);
        let terminal = matches!(workload.streams, Streams::Terminal { .. });
        let (input, output, error) = match workload.streams {
            Streams::Pipes { stdin, stdout, stderr } => (
                stdin.map(into).transpose()?,
                Output::of_pipe(end(stdout, STDOUT, EventFlags::IN)?),
                Some(Output::of_pipe(end(stderr, STDERR, EventFlags::IN)?)),
            ),
            Streams::Terminal { master, input, lines } => {
                let input = if input { Some(into(fcntl_dupfd_cloexec(&master, 0)?)?) } else { None };
                (input, Output::of_terminal(end(master, STDOUT, EventFlags::IN)?, lines), None)
            }
        };
        let interest = if input.is_some() { EventFlags::IN } else { EventFlags::empty() };
        Ok(Self {
            stdio_port: end(stdio, STDIO_PORT, interest)?,
            stderr_port: end(stderr, STDERR_PORT, EventFlags::empty())?,
            input: input.map(|sink| Input::new(sink, terminal)),
            output,
            error,
            end: None,
            pid: workload.pid,
            pidfd: workload.pidfd,
            terminal,
            execs: Execs::default(),
            probes: Probes::new(spec, notify, NOTIFY, &epoll)?,
            spec,
            control,
            epoll,
        })
    }

    /// Moves what can be moved.
    fn pump(&mut self) -> Result<(), Errno> {
        self.output.pump(&mut self.stdio_port, &self.epoll)?;
        if let Some(error) = &mut self.error {
            error.pump(&mut self.stderr_port, &self.epoll)?;
        }
        if let Some(input) = &mut self.input {
            input.pump(&mut self.stdio_port, &self.epoll)?;
        }
        Ok(())
    }

    /// Moves what can be moved of the processes beside the workload, and asks what is to be known of it.
    fn attend(&mut self) -> Result<(), Failure> {
        // What is heard may give a process credit, and its readiness is told only once.
        loop {
            let reports = self.execs.pump(&self.epoll, self.control)?;
            if reports.is_empty() {
                break;
            }
            for (owner, report) in reports {
                self.probes.hear(owner, report, &mut self.execs, self.control)?;
            }
        }
        if self.end.is_some() {
            return Ok(());
        }
        let surroundings = Surroundings { spec: self.spec, workload: Some(self.pidfd.as_fd()), epoll: &self.epoll };
        self.probes.turn(&mut self.execs, &surroundings, self.control)
    }

    /// How it ended, if it did and all of its output is written.
    fn finished(&self) -> Option<WorkloadEnd> {
        let drained = |output: &Output| output.source.is_none();
        self.end.filter(|_| drained(&self.output) && self.error.as_ref().is_none_or(drained))
    }

    /// Waits for something to happen, and takes note of it.
    fn wait(&mut self) -> Result<(), Failure> {
        let mut events = [MaybeUninit::<Event>::uninit(); 8];
        let due = self.probes.due().filter(|_| self.end.is_none());
        let timeout = due.map(|milliseconds| Timespec {
            tv_sec: (milliseconds / 1000) as i64,
            tv_nsec: (milliseconds % 1000 * 1_000_000) as i64,
        });
        let (events, _) = match epoll::wait(&self.epoll, &mut events, timeout.as_ref()) {
            Err(Errno::INTR) => return Ok(()),
            outcome => outcome.step(STEP, "event loop")?,
        };
        for event in events {
            let (token, flags) = (event.data.u64(), event.flags);
            let note = |end: Option<&mut End>| {
                if let Some(end) = end {
                    end.note(flags);
                }
            };
            match token {
                CONTROL => {
                    self.control.fill()?;
                    self.obey()?;
                }
                WORKLOAD => self.collect().step(STEP, "status of the workload")?,
                STDIO_PORT => note(Some(&mut self.stdio_port)),
                STDERR_PORT => note(Some(&mut self.stderr_port)),
                STDIN => note(self.input.as_mut().and_then(|input| input.sink.as_mut())),
                STDOUT => note(self.output.source.as_mut()),
                NOTIFY => self.probes.hear_workload(),
                Execs::FIRST_TOKEN.. => self.execs.note(token, flags, &self.epoll)?,
                _ => note(self.error.as_mut().and_then(|error| error.source.as_mut())),
            }
        }
        Ok(())
    }

    /// Takes the status of the workload's process.
    fn collect(&mut self) -> Result<(), Errno> {
        let Some((_, status)) = waitpid(Some(self.pid), WaitOptions::empty())? else { return Ok(()) };
        epoll::delete(&self.epoll, &self.pidfd)?;
        self.output.expect_end();
        self.end = Some(match (status.exit_status(), status.terminating_signal()) {
            (Some(status), _) => WorkloadEnd::Exited(status as u8),
            // PID 1 of a namespace ignores these two, so nothing but reboot(2) in the namespace ends it like this.
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

    /// Does what the host's messages say, those that have arrived.
    fn obey(&mut self) -> Result<(), Failure> {
        while let Some(message) = self.control.next()? {
            match message {
                ToGuest::Signal(signal @ 1..=LAST_SIGNAL) => {
                    // It may have ended a moment ago.
                    let _ = send_signal(self.pidfd.as_fd(), signal);
                }
                ToGuest::Resize(size) if self.terminal => {
                    if let Some(master) = &self.output.source {
                        let _ = tcsetwinsize(&master.descriptor, window(size));
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
                    // A terminal is hung up when its master is closed altogether.
                    if let Some(input) = self.input.as_mut().filter(|_| self.terminal) {
                        input.sink = None;
                    }
                }
                ToGuest::Exec { id, request } => {
                    self.obey_for_process(id, request)?;
                }
                // Nothing of the kind can be meant now, or for a workload of this kind.
                ToGuest::Signal(_) | ToGuest::Resize(_) | ToGuest::Spec(_) => {}
            }
        }
        Ok(())
    }

    /// Does what the host wants of a process beside the workload.
    fn obey_for_process(&mut self, id: u32, request: ExecRequest) -> Result<(), Failure> {
        let ExecRequest::Start(spec) = request else {
            self.execs.obey(Owner::Host(id), request);
            return Ok(());
        };
        let workload = self.end.is_none().then(|| self.pidfd.as_fd());
        let report = match self.execs.start(Owner::Host(id), &spec, self.spec, workload, &self.epoll) {
            Ok(()) => ExecReport::Started,
            Err(failure) => failure.into(),
        };
        self.control.send(&ToHost::Exec { id, report })
    }
}
