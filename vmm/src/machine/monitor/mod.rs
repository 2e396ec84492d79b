// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The event loop of a running machine, on `main`. It waits for signals, vCPUs, timers, the control
//! port, the streams and the control socket, makes events of them, and performs the actions with
//! which the [`Supervisor`] answers.
//!
//! What can end the run comes first in each turn. What the guest or a client can cause is bounded
//! per turn: one read of the control port, one read per client.

mod clients;
mod control_port;
mod layer;
mod service_notifier;
mod snapshot;
mod timers;
mod workload_input;

pub(crate) use layer::LayerReport;
pub(crate) use service_notifier::ServiceNotifier;
pub(crate) use snapshot::SnapshotReport;

use self::clients::Clients;
use self::control_port::{ControlPort, Received};
use self::layer::PendingLayer;
use self::snapshot::PendingSnapshot;
use self::timers::Timers;
use self::workload_input::WorkloadInput;
use super::build::Machine;
use super::run::{RunContext, StartError, stop_loops};
use super::threads::{VcpuThreads, VcpuTotals};
use crate::host::forbidden_call;
use crate::host::lost_memory;
use crate::host::panics;
use crate::host::signals::ReceivedSignal;
use crate::host::terminal::window_size;
use crate::machine::supervisor::{Action, Event, Supervisor};
use crate::sandbox::{self, Thread};
use crate::state::end::End;
use crate::state::stages::Stage;
use crate::state::status::State;
use devices::virtio::console::PortMonitor;
use kvm::ExitReason;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// Between two samples of a profile.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(1);
/// Bytes read from the control port in one turn.
const CONTROL_BUF_SIZE: usize = 16 << 10;
/// Signals read in one turn: they may come faster than they are forwarded.
const MAX_SIGNALS_PER_TURN: usize = 64;
/// For the console's loop to end, before the last messages are read.
const CONSOLE_STOP_LIMIT: Duration = Duration::from_secs(1);
/// Reads of the control port after the vCPUs have stopped. Its socket buffers hold less.
const MAX_LAST_READS: usize = 64;

pub(super) struct Monitor<'a> {
    epoll: Epoll,
    machine: &'a mut Machine,
    threads: VcpuThreads,
    totals: VcpuTotals,
    supervisor: Supervisor,
    clients: Clients,
    input: WorkloadInput,
    context: RunContext<'a>,
    timers: Timers,
    control_port: ControlPort,
    known: KnownStreams,
    snapshot: Option<PendingSnapshot>,
    layer: Option<PendingLayer>,
    end: Option<End>,
}

/// What the supervisor knows about the streams, so that each event is sent once.
#[derive(Default)]
struct KnownStreams {
    stdin_ended: bool,
    stdout_closed: bool,
    stderr_closed: bool,
    /// It requested the counts of the output.
    awaits_output: bool,
}

impl<'a> Monitor<'a> {
    pub(super) fn new(
        machine: &'a mut Machine,
        threads: VcpuThreads,
        supervisor: Supervisor,
        mut context: RunContext<'a>,
    ) -> std::io::Result<Self> {
        let epoll = Epoll::new()?;
        let sources = [
            (context.signals.as_raw_fd(), Source::Signals),
            (threads.ended().as_raw_fd(), Source::VcpuEnd),
            (panics::watch()?.as_raw_fd(), Source::Panic),
            (machine.ports.stdio.event.as_raw_fd(), Source::Stdio),
            (machine.ports.stderr.event.as_raw_fd(), Source::Stderr),
        ];
        forbidden_call::wake(panics::watch()?.as_raw_fd());
        lost_memory::wake(panics::watch()?.as_raw_fd());
        let socket = context.socket.as_ref().map(|socket| (socket.as_raw_fd(), Source::Socket));
        let logs = context.socket.as_ref().and_then(|socket| socket.log_notifier());
        let logs = logs.map(|notifier| (notifier.as_raw_fd(), Source::Logs));
        let links = machine.nets.iter().map(|net| (net.event().as_raw_fd(), Source::Links));
        for (descriptor, source) in sources.into_iter().chain(socket).chain(logs).chain(links) {
            let event = EpollEvent::new(EventSet::IN, source as u64);
            epoll.ctl(ControlOperation::Add, descriptor, event)?;
        }
        let control = machine.ports.control.try_clone()?;
        let control_port = ControlPort::register(control, &epoll, Source::Control as u64)?;
        let input = WorkloadInput::new(context.input.take(), Source::Input as u64)?;
        context.lifecycle.set_links(machine.links());
        let sample = machine.profile.is_some().then_some(SAMPLE_INTERVAL);
        let heartbeat = context.notifier.interval();
        Ok(Self {
            epoll,
            machine,
            threads,
            totals: VcpuTotals::default(),
            supervisor,
            clients: Clients::default(),
            input,
            context,
            timers: Timers::new(sample, heartbeat),
            control_port,
            known: KnownStreams::default(),
            snapshot: None,
            layer: None,
            end: None,
        })
    }

    /// Confines `main`, the last thread, and lets the vCPUs run.
    ///
    /// # Errors
    /// The host refuses what `--sandbox require` asks for.
    pub(super) fn confine(self) -> Result<Self, StartError> {
        self.context.confinement.confine(Thread::Main, "main")?;
        self.context.stages.mark(Stage::FirstInstruction);
        self.threads.resume();
        Ok(self)
    }

    /// Runs until the supervisor ends the run. The vCPUs have stopped afterwards.
    pub(super) fn run(mut self) -> (End, VcpuTotals) {
        let first = self.supervisor.start(SystemTime::now());
        self.act(first);
        // Nothing may happen before it is read.
        self.control_port.flush(&self.epoll);
        loop {
            if let Some(end) = self.end.take() {
                self.context.notifier.stopping();
                self.stop_vcpus();
                return (end, self.totals);
            }
            let ready = self.wait();
            self.turn(&ready);
        }
    }

    /// Waits for at least one source or timer, unless there is something to copy.
    fn wait(&self) -> Ready {
        let now = Instant::now();
        let clients = self.context.socket.as_ref().and_then(|socket| socket.until_next(now));
        let copy = self.is_copying().then_some(Duration::ZERO);
        let timeout = self.timers.until_next(now).into_iter().chain(clients).chain(copy).min().map_or(-1, milliseconds);
        let mut events = [EpollEvent::default(); SOURCES];
        // EINTR is a turn without a ready source.
        let count = self.epoll.wait(timeout, &mut events).unwrap_or_default();
        Ready(events[..count].iter().fold(0, |set, event| set | 1 << event.data()))
    }

    fn turn(&mut self, ready: &Ready) {
        if ready.has(Source::Signals) {
            // A parent that saw the workload's first output may send a signal before this loop has read that the workload runs.
            if self.context.lifecycle.status().state == State::Starting {
                self.read_control_port();
            }
            self.on_signals();
        }
        self.on_timers();
        if ready.has(Source::Panic) {
            self.on_panic();
        }
        if ready.has(Source::VcpuEnd) {
            self.on_vcpu_end();
        }
        if ready.has(Source::Control) {
            self.read_control_port();
        }
        self.on_streams();
        if ready.has(Source::Links) {
            self.on_links();
        }
        self.on_socket(ready.has(Source::Socket) || ready.has(Source::Logs));
        if ready.has(Source::Input) {
            self.feed_input();
        }
        self.copy_layer();
        self.control_port.flush(&self.epoll);
        if self.control_port.is_stalled() {
            self.feed(Event::ControlStalled);
        }
    }

    fn feed(&mut self, event: Event<'_>) {
        let actions = self.supervisor.on(event);
        self.act(actions);
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send(frame) => self.control_port.queue(frame),
                Action::SetTimer(kind, after) => self.timers.set(kind, Instant::now().checked_add(after)),
                Action::AwaitOutput { stdout, stderr } => self.await_output(stdout, stderr),
                Action::PowerOff => self.stop_vcpus(),
                Action::Ready => self.on_ready(),
                Action::Notify(notification) => self.context.notifier.pass_on(&notification),
                Action::Addresses(addresses) => self.update(|lifecycle| lifecycle.set_addresses(&addresses)),
                Action::Health(report) => self.update(|lifecycle| lifecycle.set_health(report)),
                Action::Exec(id, event) => self.on_exec_event(id, event),
                Action::StageReached(stage) => self.on_stage(stage),
                Action::Stopping => self.on_stopping(),
                Action::Frozen(outcome) => self.on_frozen(outcome),
                Action::ScratchFrozen(outcome) => self.on_scratch_frozen(outcome),
                Action::End(end) => self.end = Some(end),
            }
        }
    }

    fn on_signals(&mut self) {
        for _ in 0..MAX_SIGNALS_PER_TURN {
            let Some(ReceivedSignal { number, by_kernel }) = self.context.signals.read() else { return };
            let signal = i32::from(number);
            if signal == libc::SIGWINCH
                && let Ok(size) = window_size(std::io::stdin())
            {
                self.feed(Event::WindowSize(size));
            }
            if signal == libc::SIGCONT
                && let Some(terminal) = &self.context.terminal
            {
                // It fails if the terminal is gone.
                let _ = terminal.reapply();
            }
            // The size of the terminal is not a message to the workload, whose own terminal may be another.
            let is_resize = signal == libc::SIGWINCH && by_kernel;
            // As signals beyond a process's limit are lost. The others end the run, in time.
            let is_lost = self.control_port.has_backlog() && !matches!(signal, libc::SIGTERM | libc::SIGINT);
            if !is_resize && !is_lost {
                self.feed(Event::HostSignal(signal));
            }
        }
    }

    fn on_timers(&mut self) {
        let now = Instant::now();
        while let Some(kind) = self.timers.take_expired(now) {
            self.feed(Event::Timer(kind));
        }
        if self.timers.take_sample(now) {
            self.threads.kick();
        }
        if self.timers.take_heartbeat(now) {
            let paused = self.context.lifecycle.status().state == State::Paused;
            self.context.notifier.heartbeat(paused);
        }
    }

    /// Reads once. Returns whether there may be more.
    fn read_control_port(&mut self) -> bool {
        let mut bytes = [0; CONTROL_BUF_SIZE];
        match self.control_port.receive(&mut bytes, &self.epoll) {
            Received::Bytes(length) => self.feed(Event::ControlBytes(&bytes[..length])),
            Received::Closed => self.feed(Event::ControlClosed),
            Received::Nothing => return false,
        }
        true
    }

    fn on_streams(&mut self) {
        let ports = &self.machine.ports;
        let (stdio, stderr) = (Arc::clone(&ports.stdio), Arc::clone(&ports.stderr));
        // The reads only clear the descriptors. What happened is in the monitors.
        let signalled = [&stdio.event, &stderr.event].map(|event| event.read().is_ok()).contains(&true);
        if is_new(&stdio.input_ended, &mut self.known.stdin_ended) {
            self.feed(Event::StdinEnded { bytes: stdio.to_guest.load(Ordering::SeqCst) });
        }
        if is_new(&stdio.output_closed, &mut self.known.stdout_closed) {
            self.feed(Event::OutputClosed { stderr: false });
        }
        if is_new(&stderr.output_closed, &mut self.known.stderr_closed) {
            self.feed(Event::OutputClosed { stderr: true });
        }
        if signalled && self.known.awaits_output {
            self.report_output();
        }
    }

    /// The host's end of an interface has come or gone.
    fn on_links(&mut self) {
        // The reads only clear the descriptors.
        self.machine.nets.iter().for_each(|net| _ = net.event().read());
        let links = self.machine.links();
        self.update(|lifecycle| lifecycle.set_links(links));
    }

    /// A vCPU stopped the machine. What the guest sent before is handled first.
    fn on_vcpu_end(&mut self) {
        let Some(reason) = self.threads.take_end() else { return };
        self.stop_vcpus();
        // The console's loop is the first; it serves its queues once more before it ends.
        let console_loop = self.machine.loops.drain(..1.min(self.machine.loops.len())).collect();
        self.totals.stuck.extend(stop_loops(console_loop, CONSOLE_STOP_LIMIT));
        for _ in 0..MAX_LAST_READS {
            if !self.read_control_port() {
                break;
            }
        }
        self.on_streams();
        self.feed(Event::MachineStopped(reason));
    }

    /// Another thread panicked, or any made a forbidden system call, or read memory that is lost. No device can be relied on any
    /// more.
    fn on_panic(&mut self) {
        self.stop_vcpus();
        let forbidden = forbidden_call::first().map(|call| sandbox::describe(&call));
        let bug = forbidden.or_else(|| panics::first().map(str::to_owned));
        let reason = match bug {
            None if lost_memory::is_lost() => ExitReason::HostError(lost_memory::LINE.to_owned()),
            bug => ExitReason::InternalError(bug.unwrap_or_else(|| "internal error".to_owned())),
        };
        self.feed(Event::MachineStopped(reason));
    }

    fn await_output(&mut self, stdout: u64, stderr: u64) {
        // Both are armed before the counts are read: later bytes signal.
        self.machine.ports.stdio.announce_at(stdout);
        self.machine.ports.stderr.announce_at(stderr);
        self.known.awaits_output = true;
        self.report_output();
    }

    fn report_output(&mut self) {
        let count = |monitor: &PortMonitor| monitor.to_host.load(Ordering::SeqCst);
        let (stdout, stderr) = (count(&self.machine.ports.stdio), count(&self.machine.ports.stderr));
        self.feed(Event::OutputWritten { stdout, stderr });
    }

    fn stop_vcpus(&mut self) {
        let totals = self.threads.stop();
        self.totals.add(totals);
    }
}

/// A descriptor in the epoll set, by the number in its event.
#[derive(Clone, Copy)]
enum Source {
    Signals,
    Control,
    VcpuEnd,
    Panic,
    Stdio,
    Stderr,
    Socket,
    Logs,
    Links,
    Input,
}

const SOURCES: usize = Source::Input as usize + 1;

/// A set of [`Source`]s.
struct Ready(u64);

impl Ready {
    fn has(&self, source: Source) -> bool {
        self.0 & 1 << source as u64 != 0
    }
}

/// Rounded up, so that a deadline has passed when epoll returns.
fn milliseconds(wait: Duration) -> i32 {
    i32::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
}

/// Whether `flag` is set and `known` was not; sets `known`.
fn is_new(flag: &AtomicBool, known: &mut bool) -> bool {
    let is_new = flag.load(Ordering::SeqCst) && !*known;
    *known |= is_new;
    is_new
}
