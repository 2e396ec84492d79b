// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Running a machine to its end: threads, the [`Monitor`] that `main` waits in, and the order of the end, which is always:
//! vCPUs, event loops, and only then the result.

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
use kvm::software::CompletionCounts;
use std::io::PipeWriter;

/// What is left when the machine is gone.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// How it ended.
    pub(crate) end: End,
    /// Instructions completed for a host that emulates guest kernel mode.
    pub(crate) completions: CompletionCounts,
    /// What it used.
    pub(crate) counters: Counters,
    /// Devices that no driver of the guest ever used, and the kernel option of the driver.
    pub(crate) unclaimed: Vec<(String, &'static str)>,
    /// Number of virtio devices.
    pub(crate) devices: usize,
}

/// What happens outside the machine while it runs.
#[derive(Debug)]
pub(crate) struct RunContext<'a> {
    /// Signals to this process.
    pub(crate) signals: &'a Signals,
    /// The user's terminal, if the guest's stands for it.
    pub(crate) terminal: Option<RawTerminal>,
    /// What the service manager is told.
    pub(crate) notifier: ServiceNotifier,
    /// Where the stages of the boot are noted.
    pub(crate) stages: &'a mut Stages,
    /// What others are told of the run.
    pub(crate) lifecycle: &'a mut Lifecycle,
    /// Where they ask, unless the host refused it.
    pub(crate) socket: Option<&'a mut ControlSocket>,
    /// Who waits until the workload runs.
    pub(crate) starter: Option<Daemon>,
    /// Where the input of a detached workload comes from.
    pub(crate) input: Option<PipeWriter>,
}

impl Machine {
    /// Runs the guest until the supervisor ends.
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
            unclaimed: unclaimed.map(|transport| transport.name_and_kernel_option()).collect(),
            devices: self.transports.len(),
        }
    }
}
