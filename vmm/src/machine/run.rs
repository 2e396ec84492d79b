// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Runs a machine to its end: starts the vCPUs, waits in the [`Monitor`], then stops everything in
//! the order that always applies: vCPUs, event loops, and only then the result. Runs on `main`.

use super::build::Machine;
use super::monitor::{Monitor, ServiceNotifier};
use super::threads::{VcpuThreads, VcpuTotals};
use crate::api::control_socket::ControlSocket;
use crate::host::daemonize::Daemon;
use crate::host::signals::Signals;
use crate::host::terminal::RawTerminal;
use crate::machine::supervisor::Supervisor;
use crate::state::counters::Counters;
use crate::state::end::{End, EndReason};
use crate::state::lifecycle::Lifecycle;
use crate::state::stages::{Stage, Stages};
use devices::event_loop::EventLoop;
use devices::virtio::DeviceIdentity;
use kvm::software::CompletionCounts;
use std::io::PipeWriter;

/// What remains of a machine.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) end: End,
    /// Instructions completed for a host that emulates guest kernel mode.
    pub(crate) completions: CompletionCounts,
    pub(crate) counters: Counters,
    /// Devices that no driver of the guest claimed.
    pub(crate) unclaimed: Vec<DeviceIdentity>,
    /// Number of virtio devices.
    pub(crate) devices: usize,
}

/// What a machine is given to run.
#[derive(Debug)]
pub(crate) struct RunContext<'a> {
    pub(crate) signals: &'a Signals,
    /// The user's terminal, if the workload has one.
    pub(crate) terminal: Option<RawTerminal>,
    pub(crate) notifier: ServiceNotifier,
    pub(crate) stages: &'a mut Stages,
    pub(crate) lifecycle: &'a mut Lifecycle,
    /// `None` if the host refused the control socket.
    pub(crate) socket: Option<&'a mut ControlSocket>,
    /// The parent that waits until the workload of a detached machine runs.
    pub(crate) parent: Option<Daemon>,
    /// Standard input of a detached workload, which attached clients write.
    pub(crate) input: Option<PipeWriter>,
}

impl Machine {
    /// Runs the guest until the supervisor ends the run.
    pub(crate) fn run(mut self, supervisor: Supervisor, context: RunContext<'_>) -> Outcome {
        let vcpus = std::mem::take(&mut self.vcpus);
        context.stages.mark(Stage::FirstInstruction);
        let run = VcpuThreads::start(vcpus, &self.buses)
            .and_then(|threads| Monitor::new(&mut self, threads, supervisor, context))
            .map(Monitor::run);
        let (end, totals) = run.unwrap_or_else(|error| {
            let end = End::failed(EndReason::HostError, &format!("cannot start the vCPUs: {error}"));
            (end, VcpuTotals::default())
        });
        self.loops.drain(..).for_each(EventLoop::stop);
        self.serial.flush();
        let counters = self.counters(totals.cpu_time);
        let unclaimed = self.transports.iter().filter(|transport| !transport.is_claimed());
        Outcome {
            end: end.with_console(&self.console_log.tail()),
            counters,
            completions: totals.completions,
            unclaimed: unclaimed.map(|transport| transport.identity().clone()).collect(),
            devices: self.transports.len(),
        }
    }
}
