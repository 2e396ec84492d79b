// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The supervisor with PID 1 and with whoever sends signals to this process, as a state machine: events in, actions
//! out, no clock, no descriptor, no thread. `main`'s event loop feeds it.
//!
//! ```text
//!  Booting --Hello--> Starting --Running--> Running --Ended--> Draining --all written--> Done
//!                                                     (Failed goes to Done from anywhere before)
//! ```
//!
//! A signal that asks for the end (TERM, and INT, HUP and QUIT, which would end a process that has not set up handlers
//! yet) ends `Booting` and `Starting` at once. From `Running` on the contract's table holds. Power cut while the output
//! still drains loses output, so it counts as `killed` although the workload's own end is known by then. PID 1 reports when all
//! that must last is on the disks, so that once the output is out, too, the power is cut.

mod action;
mod event;
pub(crate) mod exec;
mod request;
mod settings;

pub(crate) use action::{Action, TimerKind};
pub(crate) use event::Event;
pub(crate) use settings::Settings;

use self::exec::{ExecEnd, ExecId, ExecNews, ExecRefusal, ExecSessions};
use crate::state::end::{End, EndReason};
use crate::state::stages::Stage;
use guest_protocol::exec::ExecSpec;
use guest_protocol::protocol::{self, FrameReader, ToGuest, ToHost, WorkloadEnd, encode};
use guest_protocol::run_spec::{Readiness, WindowSize};
use kvm::ExitReason;
use std::time::Duration;

/// How long the machine's own end may take after the control port closed.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

const SIGHUP: u8 = 1;
const SIGINT: u8 = 2;
const SIGQUIT: u8 = 3;
const SIGUSR1: u8 = 10;
const SIGUSR2: u8 = 12;
const SIGTERM: u8 = 15;

/// See the module.
#[derive(Debug)]
pub(crate) struct Supervisor {
    settings: Settings,
    state: State,
    reader: FrameReader,
    outputs: Outputs,
    stop: StopRequest,
    execs: ExecSessions,
    ready: bool,
    /// Messages that came before PID 1 could take them.
    waiting: Vec<ToGuest>,
    actions: Vec<Action>,
}

#[derive(Debug)]
enum State {
    Booting,
    Starting,
    Running,
    Draining { end: End, stdout: u64, stderr: u64 },
    Done,
}

/// What is known of the standard streams on the host.
#[derive(Debug, Default)]
struct Outputs {
    stdout: u64,
    stderr: u64,
    stdout_closed: bool,
    stderr_closed: bool,
}

/// How far the wish to stop has gone.
#[derive(Debug, Default)]
struct StopRequest {
    interrupted: bool,
    asked: bool,
    /// From the request to the power cut.
    grace: Duration,
}

impl Supervisor {
    /// Before the machine runs.
    #[must_use]
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            state: State::Booting,
            reader: FrameReader::default(),
            outputs: Outputs::default(),
            stop: StopRequest::default(),
            execs: ExecSessions::default(),
            ready: false,
            waiting: Vec::new(),
            actions: Vec::new(),
        }
    }

    /// What to do when the machine starts.
    #[must_use]
    pub(crate) fn start(&self) -> Vec<Action> {
        self.settings.timeout.map(|limit| Action::SetTimer(TimerKind::Run, limit)).into_iter().collect()
    }

    /// What to do about `event`.
    #[must_use]
    pub(crate) fn on(&mut self, event: Event<'_>) -> Vec<Action> {
        if matches!(self.state, State::Done) {
            return Vec::new();
        }
        match event {
            Event::ControlBytes(bytes) => self.read(bytes),
            Event::ControlClosed => self.on_control_closed(),
            Event::HostSignal(signal) => self.on_signal(signal),
            Event::WindowSize(size) => self.on_window_size(size),
            Event::Stop { grace, signal } => self.on_stop_request(grace, signal),
            Event::Kill(signal) => self.on_kill_request(signal),
            Event::Timer(kind) => self.on_timer(kind),
            Event::StdinEnded { bytes } => self.tell(ToGuest::StdinEnd { bytes }),
            Event::OutputClosed { stderr } => {
                *(if stderr { &mut self.outputs.stderr_closed } else { &mut self.outputs.stdout_closed }) = true;
                self.tell(ToGuest::OutputClosed { stderr });
                self.end_if_drained();
            }
            Event::StreamsWritten { stdout, stderr } => {
                (self.outputs.stdout, self.outputs.stderr) = (stdout, stderr);
                self.end_if_drained();
            }
            Event::Exec(id, command) => {
                if let Some(message) = self.execs.command(id, command) {
                    self.tell(message);
                }
            }
            Event::MachineStopped(reason) => self.on_machine_stopped(&reason),
        }
        std::mem::take(&mut self.actions)
    }

    /// Starts a process beside the workload; what becomes of it comes as [`Action::Exec`]s with this number.
    ///
    /// # Errors
    /// Not now.
    pub(crate) fn exec(&mut self, spec: ExecSpec) -> Result<(ExecId, Vec<Action>), ExecRefusal> {
        match self.state {
            State::Booting | State::Starting => return Err(ExecRefusal::NotYet),
            State::Running => {}
            State::Draining { .. } | State::Done => return Err(ExecRefusal::Ended),
        }
        let (id, message) = self.execs.start(spec)?;
        self.send(&message);
        Ok((id, std::mem::take(&mut self.actions)))
    }

    /// Bytes of input that a process beside the workload takes now.
    #[must_use]
    pub(crate) fn exec_room(&self, id: ExecId) -> usize {
        self.execs.room(id)
    }

    /// How many bytes of standard output and standard error must have come out before the run can end, once that is known.
    /// [`Event::StreamsWritten`] is wanted from then on.
    #[must_use]
    pub(crate) fn awaited(&self) -> Option<(u64, u64)> {
        match self.state {
            State::Draining { stdout, stderr, .. } => Some((stdout, stderr)),
            _ => None,
        }
    }

    fn read(&mut self, bytes: &[u8]) {
        self.reader.push(bytes);
        loop {
            match self.reader.next() {
                Ok(Some(message)) => self.on_message(message),
                Ok(None) => return,
                Err(error) => return self.broken(&format!("a frame of the guest's init cannot be read ({error:?})")),
            }
            if matches!(self.state, State::Done) {
                return;
            }
        }
    }

    fn on_message(&mut self, message: ToHost) {
        match (&self.state, message) {
            (State::Booting, ToHost::Hello { version: protocol::VERSION }) => {
                self.actions.push(Action::Reached(Stage::InitStarted));
                self.send(&ToGuest::Spec(self.settings.spec.clone()));
                self.state = State::Starting;
                // Signals wait for the workload; the rest concerns the streams, and PID 1 takes it at any time.
                let (signals, others) =
                    std::mem::take(&mut self.waiting).into_iter().partition(|m| matches!(m, ToGuest::Signal(_)));
                self.waiting = signals;
                let others: Vec<ToGuest> = others;
                others.iter().for_each(|message| self.send(message));
            }
            (State::Booting, ToHost::Hello { version }) => {
                let detail = format!("the guest's init speaks protocol {version}, coracle {}", protocol::VERSION);
                self.cut_power(End::failed(EndReason::HostError, &format!("{detail}: they were not built together")));
            }
            (State::Starting, ToHost::Running) => {
                if self.settings.spec.readiness == Readiness::Executed {
                    self.be_ready();
                }
                self.actions.push(Action::Reached(Stage::WorkloadExecuted));
                self.state = State::Running;
                std::mem::take(&mut self.waiting).iter().for_each(|message| self.send(message));
            }
            (State::Running, ToHost::Ended { end, stdout_bytes, stderr_bytes }) => {
                let end = End::of_workload(end, self.stop.asked);
                self.state = State::Draining { end, stdout: stdout_bytes, stderr: stderr_bytes };
                self.end_if_drained();
            }
            (State::Running, ToHost::Ready) => self.be_ready(),
            (State::Running, ToHost::Health(report)) => self.actions.push(Action::Health(report)),
            (State::Running, ToHost::Notification(said)) => self.actions.push(Action::Notified(said)),
            (State::Running, ToHost::Exec { id, report }) => match self.execs.hear(id, report) {
                Ok(Some(news)) => self.actions.push(Action::Exec(id, news)),
                Ok(None) => {}
                Err(fault) => self.broken(&format!("the guest's init said {fault}")),
            },
            (State::Booting | State::Starting | State::Running, ToHost::Failed { kind, step, detail, errno }) => {
                self.cut_power(End::of_failure(kind, &step, &detail, errno));
            }
            (_, message) => self.broken(&format!("the guest's init said {} out of turn", name(&message))),
        }
    }

    /// Once, however often the workload says so.
    fn be_ready(&mut self) {
        if !std::mem::replace(&mut self.ready, true) {
            self.actions.push(Action::Ready);
        }
    }

    /// Once the workload has ended and all that it wrote is out, nothing can be lost any more.
    fn end_if_drained(&mut self) {
        let State::Draining { end, stdout, stderr } = &self.state else { return };
        let stdout_done = self.outputs.stdout_closed || self.outputs.stdout >= *stdout;
        let stderr_done = self.outputs.stderr_closed || self.outputs.stderr >= *stderr;
        if stdout_done && stderr_done {
            let end = end.clone();
            self.cut_power(end);
        }
    }

    fn on_control_closed(&mut self) {
        // The machine's own end tells more, and comes at once if the port closed for it.
        self.actions.push(Action::SetTimer(TimerKind::Grace, GRACE));
    }

    fn on_signal(&mut self, signal: i32) {
        let Ok(signal) = u8::try_from(signal) else { return };
        let before_the_workload = matches!(self.state, State::Booting | State::Starting);
        match signal {
            SIGTERM | SIGINT | SIGHUP | SIGQUIT if before_the_workload => {
                self.cut_power(End::signalled_before_workload(signal));
            }
            SIGTERM => self.stop(),
            SIGINT if self.stop.interrupted => self.stop(),
            SIGINT => {
                self.stop.interrupted = true;
                self.tell(ToGuest::Signal(signal));
            }
            SIGHUP | SIGQUIT => self.tell(ToGuest::Signal(signal)),
            // One of each is enough: signals of a kind do not queue in a process either.
            SIGUSR1 | SIGUSR2 if before_the_workload && self.waiting.contains(&ToGuest::Signal(signal)) => {}
            SIGUSR1 | SIGUSR2 if before_the_workload => self.waiting.push(ToGuest::Signal(signal)),
            SIGUSR1 | SIGUSR2 => self.tell(ToGuest::Signal(signal)),
            _ => {}
        }
    }

    /// TERM, or what is like it.
    fn stop(&mut self) {
        if self.stop.asked || self.settings.stop_timeout.is_zero() {
            return self.cut_power(End::killed("power was cut at the second request to stop"));
        }
        self.ask_to_stop(self.settings.stop_signal, self.settings.stop_timeout);
    }

    fn ask_to_stop(&mut self, signal: u8, grace: Duration) {
        self.stop.asked = true;
        self.actions.push(Action::Stopping);
        self.tell(ToGuest::Signal(signal));
        self.set_grace(grace);
    }

    fn set_grace(&mut self, grace: Duration) {
        self.stop.grace = grace;
        self.actions.push(Action::SetTimer(TimerKind::Stop, grace));
    }

    fn on_window_size(&mut self, size: WindowSize) {
        match self.state {
            _ if !self.settings.terminal => {}
            State::Booting => self.settings.spec.terminal = Some(size),
            _ => self.tell(ToGuest::Resize(size)),
        }
    }

    fn on_timer(&mut self, kind: TimerKind) {
        let end = match kind {
            TimerKind::Run => End::timeout(self.settings.timeout.unwrap_or_default()),
            TimerKind::Stop => End::killed(&format!("did not stop within {} s", self.stop.grace.as_secs_f64())),
            TimerKind::Grace => End::failed(EndReason::InternalError, "the control port closed"),
        };
        self.cut_power(end);
    }

    fn on_machine_stopped(&mut self, reason: &ExitReason) {
        match (&self.state, reason) {
            // A crash resets the machine; that somebody inside switched it off is as good as a report.
            (State::Running | State::Draining { .. }, ExitReason::Poweroff) => {
                self.finish(End::of_workload(WorkloadEnd::Poweroff, self.stop.asked));
            }
            _ => self.finish(End::of_machine(reason)),
        }
    }

    fn broken(&mut self, detail: &str) {
        self.cut_power(End::failed(EndReason::InternalError, detail));
    }

    fn cut_power(&mut self, end: End) {
        self.actions.push(Action::PowerOff);
        self.finish(end);
    }

    fn finish(&mut self, end: End) {
        for id in self.execs.abandon() {
            self.actions.push(Action::Exec(id, ExecNews::Over(ExecEnd::MachineEnded)));
        }
        self.actions.push(Action::End(end));
        self.state = State::Done;
    }

    /// Sends `message` as soon as PID 1 can take it.
    fn tell(&mut self, message: ToGuest) {
        match self.state {
            State::Booting => self.waiting.push(message),
            State::Starting | State::Running => self.send(&message),
            State::Draining { .. } | State::Done => {}
        }
    }

    fn send(&mut self, message: &ToGuest) {
        self.actions.push(Action::Send(encode(message)));
    }
}

fn name(message: &ToHost) -> &'static str {
    match message {
        ToHost::Hello { .. } => "Hello",
        ToHost::Running => "Running",
        ToHost::Failed { .. } => "Failed",
        ToHost::Ended { .. } => "Ended",
        ToHost::Exec { .. } => "Exec",
        ToHost::Ready => "Ready",
        ToHost::Health(_) => "Health",
        ToHost::Notification(_) => "Notification",
    }
}

#[cfg(test)]
mod tests;
