// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Running a machine to its end. `main` waits here for signals, the control port, the streams and the vCPUs, and lets
//! the [`Conversation`] decide. The order of the end is always: vCPUs, event loops, and only then the result.

use super::build::Machine;
use super::threads::{VcpuThreads, VcpuTotals};
use super::timers::Timers;
use crate::control::conversation::{Action, Conversation, Event};
use crate::control::end::{End, EndReason, MachineStop};
use crate::control::stages::{Stage, Stages};
use crate::host::signals::Signals;
use crate::host::terminal::{RawTerminal, window_size};
use crate::kvm::VcpuEnd;
use crate::kvm::software::Counts;
use devices::event_loop::EventLoop;
use devices::virtio::block::DiskCounters;
use devices::virtio::console::PortMonitor;
use devices::virtio::net::NetCounters;
use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// Between two samples of a profile.
const SAMPLE: Duration = Duration::from_millis(1);

/// What is left when the machine is gone.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// CPU time of the vCPU threads.
    pub vcpu_time: Duration,
    /// Instructions completed for a host that emulates guest kernel mode.
    pub completions: Counts,
    /// What went through the disks, in the order in which they were attached.
    pub disks: Vec<Arc<DiskCounters>>,
    /// What went through the network devices.
    pub nets: Vec<Arc<NetCounters>>,
    /// Devices that no driver of the guest ever used, and the kernel option of the driver.
    pub undriven: Vec<(String, &'static str)>,
}

/// What happens outside the machine while it runs.
#[derive(Debug)]
pub struct Surroundings<'a> {
    /// Signals to this process.
    pub signals: &'a Signals,
    /// The user's terminal, if the guest's stands for it.
    pub terminal: Option<RawTerminal>,
    /// Where the stages of the boot are noted.
    pub stages: &'a mut Stages,
}

impl Machine {
    /// Runs the guest until the conversation ends.
    pub fn run(mut self, conversation: Conversation, surroundings: Surroundings<'_>) -> Outcome {
        let vcpus = std::mem::take(&mut self.vcpus);
        surroundings.stages.mark(Stage::FirstInstruction);
        let run = VcpuThreads::start(vcpus, &self.buses)
            .and_then(|threads| Session::new(&mut self, threads, conversation, surroundings))
            .map(Session::run);
        let (end, totals) = run.unwrap_or_else(|error| {
            let end = End::failed(EndReason::HostError, &format!("cannot start the vCPUs: {error}"));
            (end, VcpuTotals::default())
        });
        self.loops.drain(..).for_each(EventLoop::stop);
        self.serial.flush();
        let undriven = self.transports.iter().filter(|transport| !transport.driven());
        Outcome {
            end: end.with_console(&self.console_log.tail()),
            vcpu_time: totals.cpu_time,
            completions: totals.completions,
            undriven: undriven.map(|transport| transport.name_and_kernel_option()).collect(),
            disks: self.disks,
            nets: self.nets,
        }
    }
}

/// A running machine.
struct Session<'a> {
    epoll: Epoll,
    machine: &'a mut Machine,
    threads: VcpuThreads,
    totals: VcpuTotals,
    conversation: Conversation,
    surroundings: Surroundings<'a>,
    timers: Timers,
    /// Bytes for the control port that it has not taken yet.
    outgoing: VecDeque<u8>,
    control_open: bool,
    control_events: EventSet,
    told: Told,
    end: Option<End>,
}

/// What the conversation was told about the streams, so that it is told once.
#[derive(Default)]
struct Told {
    stdin_ended: bool,
    stdout_closed: bool,
    stderr_closed: bool,
}

impl<'a> Session<'a> {
    fn new(
        machine: &'a mut Machine,
        threads: VcpuThreads,
        conversation: Conversation,
        surroundings: Surroundings<'a>,
    ) -> std::io::Result<Self> {
        let epoll = Epoll::new()?;
        let sources = [
            (surroundings.signals.as_raw_fd(), Source::Signals),
            (machine.ports.control.as_raw_fd(), Source::Control),
            (threads.ended().as_raw_fd(), Source::VcpuEnd),
            (machine.ports.stdio.event.as_raw_fd(), Source::Stdio),
            (machine.ports.stderr.event.as_raw_fd(), Source::Stderr),
        ];
        for (descriptor, source) in sources {
            let event = EpollEvent::new(EventSet::IN, source as u64);
            epoll.ctl(ControlOperation::Add, descriptor, event)?;
        }
        let sample = machine.profile.is_some().then_some(SAMPLE);
        Ok(Self {
            epoll,
            machine,
            threads,
            totals: VcpuTotals::default(),
            conversation,
            surroundings,
            timers: Timers::new(sample),
            outgoing: VecDeque::new(),
            control_open: true,
            control_events: EventSet::IN,
            told: Told::default(),
            end: None,
        })
    }

    fn run(mut self) -> (End, VcpuTotals) {
        let first = self.conversation.start();
        self.act(first);
        loop {
            if let Some(end) = self.end.take() {
                self.stop_vcpus();
                return (end, self.totals);
            }
            let ready = self.wait();
            if ready.signals {
                self.on_signals();
            }
            if ready.control {
                self.on_control();
            }
            self.on_streams();
            if ready.ended {
                self.on_vcpu_end();
            }
            while let Some(kind) = self.timers.take_expired(Instant::now()) {
                self.feed(Event::Timer(kind));
            }
            if self.timers.take_sample(Instant::now()) {
                self.threads.kick();
            }
            self.flush_outgoing();
        }
    }

    /// Waits until something happens, and says what.
    fn wait(&self) -> Ready {
        let timeout = self.timers.until_next(Instant::now()).map_or(-1, milliseconds);
        let mut events = [EpollEvent::default(); 5];
        // EINTR: look at everything, as after a wake-up for nothing.
        let count = self.epoll.wait(timeout, &mut events).unwrap_or_default();
        let is_ready = |source: Source| events[..count].iter().any(|event| event.data() == source as u64);
        Ready {
            signals: is_ready(Source::Signals),
            control: is_ready(Source::Control),
            ended: is_ready(Source::VcpuEnd),
        }
    }

    fn feed(&mut self, event: Event<'_>) {
        let actions = self.conversation.on(event);
        self.act(actions);
        if let Some((stdout, stderr)) = self.conversation.awaited() {
            let ports = &self.machine.ports;
            // Both are asked, so that both signal.
            let out = ports.stdio.announce_at(stdout);
            let err = ports.stderr.announce_at(stderr);
            if out && err {
                let written = self.written();
                let actions = self.conversation.on(written);
                self.act(actions);
            }
        }
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send(frame) => self.outgoing.extend(frame),
                Action::SetTimer(kind, after) => self.timers.set(kind, Instant::now().checked_add(after)),
                Action::ClearTimer(kind) => self.timers.set(kind, None),
                Action::PowerOff => self.stop_vcpus(),
                Action::Reached(stage) => self.surroundings.stages.mark(stage),
                Action::End(end) => self.end = Some(end),
            }
        }
    }

    fn on_signals(&mut self) {
        while let Some(signal) = self.surroundings.signals.read() {
            match (signal, &self.surroundings.terminal) {
                (libc::SIGWINCH, _) => {
                    if let Ok(size) = window_size(std::io::stdin()) {
                        self.feed(Event::WindowSize(size));
                    }
                }
                (libc::SIGCONT, Some(terminal)) => {
                    // A terminal that is gone needs no modes.
                    let _ = terminal.reapply();
                }
                _ => self.feed(Event::HostSignal(signal)),
            }
        }
    }

    /// Reads what PID 1 says, until it has no more to say for now.
    fn on_control(&mut self) {
        let mut bytes = [0; 4096];
        while self.control_open {
            match (&self.machine.ports.control).read(&mut bytes) {
                Ok(0) => {
                    self.control_open = false;
                    let _ = self.epoll.ctl(
                        ControlOperation::Delete,
                        self.machine.ports.control.as_raw_fd(),
                        EpollEvent::default(),
                    );
                    self.feed(Event::ControlClosed);
                }
                Ok(length) => self.feed(Event::ControlBytes(&bytes[..length])),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
    }

    fn on_streams(&mut self) {
        let ports = &self.machine.ports;
        let (stdio, stderr) = (Arc::clone(&ports.stdio), Arc::clone(&ports.stderr));
        // Reading the descriptors only makes them quiet; what happened is in the monitors.
        let _ = (stdio.event.read(), stderr.event.read());
        if is_new(&stdio.input_ended, &mut self.told.stdin_ended) {
            self.feed(Event::StdinEnded { bytes: stdio.to_guest.load(Ordering::SeqCst) });
        }
        if is_new(&stdio.output_closed, &mut self.told.stdout_closed) {
            self.feed(Event::OutputClosed { stderr: false });
        }
        if is_new(&stderr.output_closed, &mut self.told.stderr_closed) {
            self.feed(Event::OutputClosed { stderr: true });
        }
        if self.conversation.awaited().is_some() {
            let written = self.written();
            self.feed(written);
        }
    }

    /// A vCPU stopped by itself. What the guest had handed over before is taken in first.
    fn on_vcpu_end(&mut self) {
        let Some(end) = self.threads.take_end() else { return };
        let stop = match end {
            VcpuEnd::Stopped => return,
            VcpuEnd::Reset => MachineStop::Reset,
            VcpuEnd::ExitStatus(status) => MachineStop::ExitStatus(status),
            VcpuEnd::TripleFault(registers) => MachineStop::TripleFault(registers),
            VcpuEnd::KvmError(line) => MachineStop::KvmError(line),
            VcpuEnd::InternalError(line) => MachineStop::InternalError(line),
        };
        self.stop_vcpus();
        // The console's loop is the first; it serves its queues once more before it ends.
        if !self.machine.loops.is_empty() {
            self.machine.loops.remove(0).stop();
        }
        self.on_control();
        self.on_streams();
        self.feed(Event::MachineStopped(stop));
    }

    fn written(&self) -> Event<'static> {
        let count = |monitor: &PortMonitor| monitor.to_host.load(Ordering::SeqCst);
        Event::StreamsWritten { stdout: count(&self.machine.ports.stdio), stderr: count(&self.machine.ports.stderr) }
    }

    fn stop_vcpus(&mut self) {
        let totals = self.threads.stop();
        self.totals.cpu_time += totals.cpu_time;
        self.totals.completions.add(&totals.completions);
    }

    /// Writes what the control port takes, and waits for the rest to fit.
    fn flush_outgoing(&mut self) {
        while !self.outgoing.is_empty() {
            match (&self.machine.ports.control).write(self.outgoing.as_slices().0) {
                Ok(length) => drop(self.outgoing.drain(..length)),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                // The guest's side is gone; so says the reading side, too.
                Err(_) => self.outgoing.clear(),
            }
        }
        let events = if self.outgoing.is_empty() { EventSet::IN } else { EventSet::IN | EventSet::OUT };
        if self.control_open && self.control_events != events {
            let event = EpollEvent::new(events, Source::Control as u64);
            let descriptor = self.machine.ports.control.as_raw_fd();
            self.epoll.ctl(ControlOperation::Modify, descriptor, event).expect("the descriptor was added in `new`");
            self.control_events = events;
        }
    }
}

/// What the loop waits for, as epoll's data.
#[derive(Clone, Copy)]
enum Source {
    Signals,
    Control,
    VcpuEnd,
    Stdio,
    Stderr,
}

/// For epoll: rounded up, so that a deadline has passed when the wait is over.
fn milliseconds(wait: Duration) -> i32 {
    i32::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
}

/// What [`Session::wait`] found.
struct Ready {
    signals: bool,
    control: bool,
    ended: bool,
}

/// Whether `flag` was set since `told` was; sets it.
fn is_new(flag: &std::sync::atomic::AtomicBool, told: &mut bool) -> bool {
    let is = flag.load(Ordering::SeqCst) && !*told;
    *told |= is;
    is
}
