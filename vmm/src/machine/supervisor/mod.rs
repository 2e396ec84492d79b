// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The state machine between PID 1, the signals to this process and the clients of the control
//! socket: events in, actions out, no clock, no descriptor, no thread. `main`'s event loop drives
//! it.
//!
//! ```text
//!  Booting --Hello--> Starting --Running--> Running --Ended--> Draining --output written--> Done
//!  Restoring --Resumed----------------> Running, in a machine that was restored from a snapshot
//!                         (Failed leads from each of the states before Draining to Done)
//! ```
//!
//! A power cut while output drains loses output: it counts as `killed`, although
//! the workload's own end is known by then. PID 1 reports `Ended` when everything that must last is
//! on the disks, so the power is cut as soon as the output is written, too.
//!
//! What PID 1 sends is the guest's word. An invalid, unexpected or unrequested message ends the run
//! with `guest-fault`; text is cut and cleaned; reports that others see are passed on at a bounded
//! rate.

pub(crate) mod exec;
mod output;
mod report;
mod scratch;
mod snapshot;
mod stop;

pub(crate) use snapshot::{Restored, SupervisorState};

use self::exec::{ExecCommand, ExecEnd, ExecError, ExecEvent, ExecId, Execs};
use self::output::Outputs;
use self::report::{Throttle, clean, name};
use self::scratch::ScratchFreeze;
use self::snapshot::Freeze;
pub(super) use self::snapshot::nanoseconds;
use self::stop::StopRequest;
use crate::config::size::MemorySize;
use crate::state::end::{End, EndReason};
use crate::state::stages::Stage;
use guest_protocol::exec::ExecSpec;
use guest_protocol::health::HealthReport;
use guest_protocol::identity::TemplateStart;
use guest_protocol::notification::Notification;
use guest_protocol::protocol::{self, FrameReader, ToGuest, ToHost, WorkloadEnd, encode};
use guest_protocol::run_spec::{Readiness, RunSpec, WindowSize};
use kvm::ExitReason;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

/// From the end of file on the control port to the power cut, if the machine does not stop before.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// What the supervisor receives; made by `main`'s event loop.
#[derive(Clone, Debug)]
pub(crate) enum Event<'a> {
    /// Bytes from the control port.
    ControlBytes(&'a [u8]),
    /// End of file on the control port.
    ControlClosed,
    /// PID 1 does not read its messages.
    ControlStalled,
    /// A signal to this process.
    HostSignal(i32),
    /// The terminal was resized.
    WindowSize(WindowSize),
    /// A client asks for an orderly stop.
    Stop {
        /// Until the power is cut, in place of `--stop-timeout`.
        grace: Option<Duration>,
        /// In place of the stop signal.
        signal: Option<u8>,
    },
    /// A client sends the workload this signal; KILL cuts the power.
    Kill(u8),
    Timer(TimerKind),
    /// End of file on standard input after `bytes`, counted since the start.
    StdinEnded {
        bytes: u64,
    },
    /// The reader of standard output (or error) is gone.
    OutputClosed {
        stderr: bool,
    },
    /// Bytes written on the host since the start. Follows [`Action::AwaitOutput`]: at once, and
    /// again when a count is reached.
    OutputWritten {
        stdout: u64,
        stderr: u64,
    },
    Exec(ExecId, ExecCommand),
    /// The machine stopped without [`Action::PowerOff`].
    MachineStopped(ExitReason),
}

/// What it answers; performed by `main`'s event loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Write this frame to the control port.
    Send(Vec<u8>),
    /// Start the timer, or restart it.
    SetTimer(TimerKind, Duration),
    /// Report with [`Event::OutputWritten`] how much output is written, now and when these counts
    /// are reached.
    AwaitOutput {
        stdout: u64,
        stderr: u64,
    },
    /// Stop the vCPUs.
    PowerOff,
    StageReached(Stage),
    /// The workload is ready.
    Ready,
    /// A health check finished.
    Health(HealthReport),
    /// The addresses of the guest's interfaces.
    Addresses(Vec<IpAddr>),
    /// Pass this on to the service manager.
    Notify(Notification),
    Exec(ExecId, ExecEvent),
    /// The processes have stopped for a snapshot, or why they have not.
    Frozen(Result<(), String>),
    /// The file system of the scratch disk is frozen, or why it is not, or no more.
    ScratchFrozen(Result<(), String>),
    /// The workload was asked to end.
    Stopping,
    /// No other event follows this one.
    End(End),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TimerKind {
    /// `--timeout`.
    Run,
    /// `--stop-timeout`.
    Stop,
    /// [`GRACE`].
    Grace,
    /// The next health report may be passed on.
    Health,
    /// The next notification may be passed on.
    Notification,
    /// The next addresses may be passed on.
    Addresses,
    /// PID 1 has stopped the processes, or let them run on.
    Freeze,
    /// PID 1 has frozen the file system of the scratch disk.
    FreezeScratch,
}

/// What is fixed for the whole run.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The answer to PID 1's `Hello`.
    pub(crate) spec: RunSpec,
    /// Sent to the workload at TERM.
    pub(crate) stop_signal: u8,
    /// From TERM to the power cut.
    pub(crate) stop_timeout: Duration,
    /// TERM and INT are the workload's like every other signal, any number of times.
    pub(crate) forwards_stops: bool,
    /// `--timeout`.
    pub(crate) timeout: Option<Duration>,
    /// `-t`.
    pub(crate) terminal: bool,
    /// The machine's, for the end reason `oom`.
    pub(crate) memory: MemorySize,
    /// The machine is restored from a snapshot.
    pub(crate) restored: Option<Restored>,
    /// The machine starts from a template: PID 1 has sent its `Hello` there.
    pub(crate) template: Option<TemplateStart>,
}

#[derive(Debug)]
pub(crate) struct Supervisor {
    settings: Settings,
    state: State,
    reader: FrameReader,
    outputs: Outputs,
    stop: StopRequest,
    execs: Execs,
    ready: bool,
    freeze: Freeze,
    scratch: ScratchFreeze,
    health: Throttle<HealthReport>,
    notification: Throttle<Notification>,
    addresses: Throttle<Vec<IpAddr>>,
    /// Messages that PID 1 cannot take yet.
    pending: Vec<ToGuest>,
    actions: Vec<Action>,
}

#[derive(Debug)]
enum State {
    Booting,
    Starting,
    /// A copy takes on its identity; the machine that it is a copy of was ready, or not.
    Restoring {
        ready: bool,
    },
    Running,
    /// The workload ended and wrote so many bytes.
    Draining {
        end: End,
        stdout: u64,
        stderr: u64,
    },
    Done,
}

impl Supervisor {
    #[must_use]
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            state: State::Booting,
            reader: FrameReader::new(protocol::MAX_TO_HOST),
            outputs: Outputs::default(),
            stop: StopRequest::default(),
            execs: Execs::default(),
            ready: false,
            freeze: Freeze::None,
            scratch: ScratchFreeze::None,
            health: Throttle::default(),
            notification: Throttle::default(),
            addresses: Throttle::default(),
            pending: Vec::new(),
            actions: Vec::new(),
        }
    }

    /// Actions for the start of the machine. `now` is the wall clock.
    #[must_use]
    pub(crate) fn start(&mut self, now: SystemTime) -> Vec<Action> {
        self.actions.extend(self.settings.timeout.map(|limit| Action::SetTimer(TimerKind::Run, limit)));
        if let Some(restored) = self.settings.restored.take() {
            self.restore(&restored, now);
        } else if let Some(own) = self.settings.template.take() {
            self.send_now(&ToGuest::TemplateStart(TemplateStart { realtime_ns: nanoseconds(now), ..own }));
            self.answer_hello();
        }
        std::mem::take(&mut self.actions)
    }

    /// Handles one event. Actions are to be performed in order.
    #[must_use]
    pub(crate) fn on(&mut self, event: Event<'_>) -> Vec<Action> {
        if matches!(self.state, State::Done) {
            return Vec::new();
        }
        match event {
            Event::ControlBytes(bytes) => self.on_control_bytes(bytes),
            // The machine's own end says more, and follows at once if the port closed because of
            // it.
            Event::ControlClosed => self.actions.push(Action::SetTimer(TimerKind::Grace, GRACE)),
            Event::ControlStalled => self.on_fault("messages to it are not read"),
            Event::HostSignal(signal) => self.on_signal(signal),
            Event::WindowSize(size) => self.on_window_size(size),
            Event::Stop { grace, signal } => self.on_stop(grace, signal),
            Event::Kill(signal) => self.on_kill(signal),
            Event::Timer(kind) => self.on_timer(kind),
            Event::StdinEnded { bytes } => self.send(ToGuest::StdinEnd { bytes }),
            Event::OutputClosed { stderr } => {
                *(if stderr { &mut self.outputs.stderr_closed } else { &mut self.outputs.stdout_closed }) = true;
                self.send(ToGuest::OutputClosed { stderr });
                self.end_if_drained();
            }
            Event::OutputWritten { stdout, stderr } => self.on_output_written(stdout, stderr),
            Event::Exec(id, command) => {
                if let Some(message) = self.execs.command(id, command) {
                    self.send(message);
                }
            }
            Event::MachineStopped(reason) => self.on_machine_stopped(&reason),
        }
        std::mem::take(&mut self.actions)
    }

    /// Starts a process beside the workload. Its events come as [`Action::Exec`] with the returned
    /// number.
    ///
    /// # Errors
    /// The workload is not running, or there are too many processes.
    pub(crate) fn exec(&mut self, spec: ExecSpec) -> Result<(ExecId, Vec<Action>), ExecError> {
        match self.state {
            State::Booting | State::Starting | State::Restoring { .. } => return Err(ExecError::NotYet),
            State::Running => {}
            State::Draining { .. } | State::Done => return Err(ExecError::Ended),
        }
        let (id, message) = self.execs.start(spec)?;
        self.send_now(&message);
        Ok((id, std::mem::take(&mut self.actions)))
    }

    /// Bytes of input that a process beside the workload takes now.
    #[must_use]
    pub(crate) fn exec_room(&self, id: ExecId) -> usize {
        self.execs.room(id)
    }

    fn on_control_bytes(&mut self, bytes: &[u8]) {
        self.reader.push(bytes);
        while !matches!(self.state, State::Done) {
            match self.reader.next() {
                Ok(Some(message)) => self.on_message(message),
                Ok(None) => return,
                Err(error) => self.on_fault(&format!("invalid frame ({error:?})")),
            }
        }
    }

    fn on_message(&mut self, message: ToHost) {
        match (&self.state, message) {
            (State::Booting, ToHost::Hello { version: protocol::VERSION }) => self.answer_hello(),
            (State::Booting, ToHost::Hello { version }) => {
                let detail = format!(
                    "protocol version mismatch: {version} in the guest's init, {} in coracle; install both from one build",
                    protocol::VERSION
                );
                self.cut_power(End::failed(EndReason::HostError, &detail));
            }
            (State::Starting, ToHost::Running) => {
                if self.settings.spec.readiness == Readiness::Executed {
                    self.set_ready();
                }
                self.actions.push(Action::StageReached(Stage::WorkloadExecuted));
                self.state = State::Running;
                std::mem::take(&mut self.pending).iter().for_each(|message| self.send_now(message));
            }
            (State::Restoring { ready }, ToHost::Resumed) => {
                let ready = *ready;
                self.on_resumed(ready);
            }
            (State::Running, ToHost::Frozen) => self.on_frozen(Ok(())),
            (State::Running, ToHost::NotFrozen { detail }) => self.on_frozen(Err(clean(&detail))),
            (State::Running, ToHost::ScratchFrozen(outcome)) => self.on_scratch_frozen(outcome),
            (State::Running, ToHost::Ended { end, stdout_bytes, stderr_bytes }) => {
                self.lose_scratch();
                let end = End::of_workload(end, self.stop.requested).with_memory(self.settings.memory);
                self.state = State::Draining { end, stdout: stdout_bytes, stderr: stderr_bytes };
                self.end_if_drained();
                if !matches!(self.state, State::Done) {
                    self.actions.push(Action::AwaitOutput { stdout: stdout_bytes, stderr: stderr_bytes });
                }
            }
            (State::Running, ToHost::Ready) if self.expects_ready() => self.set_ready(),
            (State::Running, ToHost::Health(report)) if self.settings.spec.health.is_some() => self.on_health(report),
            (State::Running, ToHost::Notification(notification))
                if self.settings.spec.readiness == Readiness::Notified =>
            {
                self.on_notification(notification);
            }
            (State::Starting | State::Running, ToHost::Addresses(addresses)) if self.has_dhcp() => {
                self.on_addresses(addresses);
            }
            (State::Running, ToHost::Exec { id, report }) => match self.execs.on_report(id, report) {
                Ok(Some(event)) => self.actions.push(Action::Exec(id, event)),
                Ok(None) => {}
                Err(fault) => self.on_fault(&fault.to_string()),
            },
            (
                State::Booting | State::Starting | State::Restoring { .. } | State::Running,
                ToHost::Failed { kind, step, detail, errno },
            ) => {
                self.cut_power(End::of_failure(kind, &step, &detail, errno));
            }
            (_, message) => self.on_fault(&format!("unexpected message {}", name(&message))),
        }
    }

    fn expects_ready(&self) -> bool {
        match self.settings.spec.readiness {
            Readiness::Executed => false,
            Readiness::Listening { .. } | Readiness::Command(_) => !self.ready,
            // A workload may notify its readiness any number of times.
            Readiness::Notified => true,
        }
    }

    /// Only the first time has an effect.
    fn set_ready(&mut self) {
        if !std::mem::replace(&mut self.ready, true) {
            self.actions.push(Action::Ready);
        }
    }

    fn on_window_size(&mut self, size: WindowSize) {
        match self.state {
            _ if !self.settings.terminal => {}
            State::Booting => self.settings.spec.terminal = Some(size),
            _ => self.send(ToGuest::Resize(size)),
        }
    }

    fn on_timer(&mut self, kind: TimerKind) {
        match kind {
            TimerKind::Run => self.cut_power(End::timeout(self.settings.timeout.unwrap_or_default())),
            TimerKind::Stop => {
                self.cut_power(End::killed(&format!("did not stop within {} s", self.stop.grace.as_secs_f64())));
            }
            TimerKind::Grace => self.on_fault("the control port was closed"),
            TimerKind::Freeze if matches!(self.state, State::Restoring { .. }) => {
                self.on_fault("it does not take on the identity of a restored machine");
            }
            TimerKind::Freeze => self.on_freeze_timeout(),
            TimerKind::FreezeScratch => self.on_scratch_timeout(),
            TimerKind::Health => {
                if let Some(report) = self.health.expire() {
                    self.on_health(report);
                }
            }
            TimerKind::Addresses => {
                if let Some(addresses) = self.addresses.expire() {
                    self.on_addresses(addresses);
                }
            }
            TimerKind::Notification => {
                if let Some(notification) = self.notification.expire() {
                    self.on_notification(notification);
                }
            }
        }
    }

    fn on_machine_stopped(&mut self, reason: &ExitReason) {
        match (&self.state, reason) {
            // A crash resets the machine. A poweroff was requested inside, which is as good as a
            // report.
            (State::Running | State::Draining { .. }, ExitReason::Poweroff) => {
                self.finish(End::of_workload(WorkloadEnd::Poweroff, self.stop.requested));
            }
            _ => self.finish(End::of_machine(reason)),
        }
    }

    /// PID 1 violates the protocol. Nothing else that it reports can be relied on.
    fn on_fault(&mut self, fault: &str) {
        self.cut_power(End::failed(EndReason::GuestFault, &format!("protocol error of the guest's init: {fault}")));
    }

    fn cut_power(&mut self, end: End) {
        self.actions.push(Action::PowerOff);
        self.finish(end);
    }

    fn finish(&mut self, end: End) {
        self.lose_scratch();
        for id in self.execs.abandon() {
            self.actions.push(Action::Exec(id, ExecEvent::Ended(ExecEnd::MachineEnded)));
        }
        self.actions.extend(self.addresses.expire().map(Action::Addresses));
        self.actions.extend(self.health.expire().map(Action::Health));
        self.actions.extend(self.notification.expire().map(Action::Notify));
        self.actions.push(Action::End(end));
        self.state = State::Done;
    }

    /// Sends `message` as soon as PID 1 can take it.
    fn send(&mut self, message: ToGuest) {
        match self.state {
            State::Booting | State::Restoring { .. } => self.pending.push(message),
            State::Starting | State::Running => self.send_now(&message),
            State::Draining { .. } | State::Done => {}
        }
    }

    fn send_now(&mut self, message: &ToGuest) {
        self.actions.push(Action::Send(encode(message)));
    }
}

#[cfg(test)]
mod report_tests;
#[cfg(test)]
mod tests;
