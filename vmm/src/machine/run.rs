// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Runs a machine to its end: starts the vCPUs, waits in the [`Monitor`], then stops everything in
//! the order that always applies: vCPUs, event loops, and only then the result. Runs on `main`.
//!
//! Each join has a deadline. A thread that misses it, because a disk hangs, is left behind: the end
//! names it, and it ends with the process.

use super::build::Machine;
use super::monitor::{Monitor, ServiceNotifier};
use super::snapshot::Source;
use super::threads::{VcpuThreads, VcpuTotals};
use crate::api::control_socket::ControlSocket;
use crate::host::daemonize::Daemon;
use crate::host::lost_memory;
use crate::host::signals::Signals;
use crate::host::system_error::chain;
use crate::host::terminal::RawTerminal;
use crate::machine::supervisor::Supervisor;
use crate::sandbox::{Confinement, SandboxError};
use crate::state::counters::Counters;
use crate::state::end::{End, EndReason};
use crate::state::lifecycle::Lifecycle;
use crate::state::stages::Stages;
use devices::event_loop::EventLoop;
use devices::virtio::mmio::{MmioTransport, RestoreError, TransportState};
use devices::virtio::{DeviceIdentity, block, net};
use kvm::GuestMemory;
use kvm::software::CompletionCounts;
use std::io::PipeWriter;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// For the event loops to drain their workers, all at the same time.
const LOOP_STOP_LIMIT: Duration = Duration::from_secs(3);

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

/// The machine cannot run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("cannot start the vCPUs: {0}")]
    Host(#[from] std::io::Error),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error("the snapshot cannot be restored here: {}", chain(.0))]
    Device(#[from] RestoreError),
}

impl From<StartError> for End {
    fn from(error: StartError) -> Self {
        let reason = match error {
            StartError::Host(_) => EndReason::HostError,
            StartError::Sandbox(_) => EndReason::SandboxError,
            StartError::Device(_) => EndReason::SnapshotError,
        };
        Self::failed(reason, &error.to_string())
    }
}

/// Each event loop confines its own thread.
pub(super) fn confine_loops(loops: &[EventLoop], confinement: &Arc<Confinement>) -> Result<(), StartError> {
    for event_loop in loops {
        let (confinement, name) = (Arc::clone(confinement), event_loop.name().to_owned());
        let confined = event_loop.handle().run(move || confinement.confine_event_loop(&name));
        confined.map_err(std::io::Error::other)??;
    }
    Ok(())
}

/// The devices of a snapshot run from here on. With `are_others` the drivers read what is different about disks and interfaces.
pub(super) fn restore_devices(
    transports: &[Arc<MmioTransport>],
    states: &[TransportState],
    are_others: bool,
) -> Result<(), StartError> {
    transports.iter().zip(states).try_for_each(|(transport, state)| transport.restore(state))?;
    let have_ends = |transport: &&Arc<MmioTransport>| [&block::KIND, &net::KIND].contains(&transport.identity().kind);
    transports.iter().filter(|_| are_others).filter(have_ends).for_each(|transport| transport.announce_config());
    Ok(())
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
    pub(crate) confinement: Arc<Confinement>,
    /// Becomes part of each snapshot.
    pub(crate) source: Source,
    /// Dropped when the workload runs: another process waits for it.
    pub(crate) maker: Option<PipeWriter>,
}

impl Machine {
    /// Runs the guest until the supervisor ends the run.
    pub(crate) fn run(mut self, supervisor: Supervisor, context: RunContext<'_>) -> Outcome {
        let vcpus = std::mem::take(&mut self.vcpus);
        let confinement = Arc::clone(&context.confinement);
        let restored = std::mem::take(&mut self.restored);
        let run = confine_loops(&self.loops, &confinement)
            .and_then(|()| restore_devices(&self.transports, &restored, self.has_other_devices))
            .and_then(|()| VcpuThreads::start(vcpus, &self.buses, &confinement))
            .and_then(|threads| Ok(Monitor::new(&mut self, threads, supervisor, context)?))
            .and_then(Monitor::confine)
            .map(Monitor::run);
        let (end, totals) = run.unwrap_or_else(|error| (error.into(), VcpuTotals::default()));
        let mut stuck = totals.stuck;
        stuck.extend(stop_loops(std::mem::take(&mut self.loops), LOOP_STOP_LIMIT));
        self.serial.flush();
        let counters = self.counters(totals.cpu_time);
        let unclaimed = self.transports.iter().filter(|transport| !transport.is_claimed());
        Outcome {
            end: name_stuck(explain(end.with_console(&self.console_log.tail()), self.vm.memory()), &stuck),
            counters,
            completions: totals.completions,
            unclaimed: unclaimed.map(|transport| transport.identity().clone()).collect(),
            devices: self.transports.len(),
        }
    }
}

/// Ends event loops at the same time. Returns the names of those that are still busy after `limit`.
pub(super) fn stop_loops(loops: Vec<EventLoop>, limit: Duration) -> Vec<String> {
    loops.iter().for_each(EventLoop::request_end);
    let deadline = Instant::now() + limit;
    let stop = |event_loop: EventLoop| {
        let name = event_loop.name().to_owned();
        let ended = event_loop.stop_within(deadline.saturating_duration_since(Instant::now()));
        (!ended).then_some(name)
    };
    loops.into_iter().filter_map(stop).collect()
}

/// Of a failure whose cause is that the memory of the snapshot is lost. A bug of this process counts all the same.
fn explain(end: End, memory: &GuestMemory) -> End {
    let may_follow = end.is_failure() && end.reason != EndReason::InternalError;
    match may_follow && (lost_memory::is_lost() || lost_memory::is_cut(memory)) {
        true => End::failed(EndReason::HostError, lost_memory::LINE),
        false => end,
    }
}

/// Adds the threads that were left behind to the detail, after its first line.
fn name_stuck(mut end: End, stuck: &[String]) -> End {
    if stuck.is_empty() {
        return end;
    }
    let note = format!("{} did not stop in time", stuck.join(", "));
    log::warn!("{note}");
    let at = end.detail.find('\n').unwrap_or(end.detail.len());
    let separator = if at == 0 { "" } else { "; " };
    end.detail.insert_str(at, &format!("{separator}{note}"));
    end
}

#[cfg(test)]
mod tests {
    use super::*;
    use devices::event_loop::Source;
    use devices::turn::Turn;
    use devices::virtio::Worker;
    use std::sync::mpsc::{Receiver, channel};
    use vm_memory::{FileOffset, GuestAddress};
    use vmm_sys_util::epoll::EventSet;

    /// Drains once its channel is closed.
    struct Hanging(Receiver<()>);

    impl Worker for Hanging {
        fn sources(&self) -> Vec<Source> {
            Vec::new()
        }

        fn start(&mut self, _: &mut Turn<'_>) {}

        fn process(&mut self, _: u32, _: EventSet, _: &mut Turn<'_>) {}

        fn drain(&mut self) {
            let _ = self.0.recv();
        }
    }

    #[test]
    fn hanging_loops_are_named_and_others_drained() {
        let (release, released) = channel();
        let (drained, is_drained) = channel();
        drop(drained);
        let loops: Vec<EventLoop> = ["disk-0", "disk-1"].map(|name| EventLoop::spawn(name).unwrap()).into();
        let _ = loops[0].handle().add(Box::new(Hanging(released))).unwrap();
        let _ = loops[1].handle().add(Box::new(Hanging(is_drained))).unwrap();
        assert_eq!(stop_loops(loops, Duration::from_millis(500)), ["disk-0"]);
        drop(release);
    }

    #[test]
    fn failure_with_a_cut_memory_file_has_this_reason() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        // Not watched, as that of the one machine of a process is.
        let offset = FileOffset::new(file.try_clone().unwrap(), 0);
        let memory = GuestMemory::from_ranges_with_files([(GuestAddress(0), 1 << 20, Some(offset))]).unwrap();
        let failed = || End::failed(EndReason::KvmError, "KVM_RUN failed");
        file.set_len(4096).unwrap();
        let reason = |end: End| explain(end, &memory).reason;
        assert_eq!(reason(failed()), EndReason::HostError);
        assert_eq!(reason(End::killed("")), EndReason::Killed);
        assert_eq!(reason(End::failed(EndReason::InternalError, "")), EndReason::InternalError);
    }

    #[test]
    fn detail_names_stuck_threads_after_its_first_line() {
        let named = |detail: &str| {
            let end = End { detail: detail.to_owned(), ..End::killed("") };
            name_stuck(end, &["vcpu-0".to_owned(), "disk-1".to_owned()]).detail
        };
        assert_eq!(named(""), "vcpu-0, disk-1 did not stop in time");
        assert_eq!(named("a\nb"), "a; vcpu-0, disk-1 did not stop in time\nb");
        assert_eq!(name_stuck(End::killed("a"), &[]).detail, "a");
    }
}
