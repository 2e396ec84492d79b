// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The vCPU threads: started together, stopped together. `main` owns this; each thread `vcpu-N`
//! runs one [`Vcpu`].

use super::run::StartError;
use super::snapshot::SaveError;
use crate::sandbox::{Confinement, Thread};
use devices::bus::{Action, Bus};
use kvm::software::CompletionCounts;
use kvm::{ExitReason, IoBus, RunControl, SavedVcpu, Vcpu};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;
use vmm_sys_util::eventfd::EventFd;

/// For a stop or a pause of all vCPUs. A vCPU leaves the guest at once, unless it activates or
/// resets a device whose event loop hangs.
const LEAVE_LIMIT: Duration = Duration::from_secs(1);

/// The machine's two buses, which vCPU threads access without a lock.
#[derive(Debug)]
pub(super) struct Buses {
    pub(super) ports: Bus,
    pub(super) mmio: Bus,
}

impl IoBus for Buses {
    fn port_read(&self, port: u16, data: &mut [u8]) {
        self.ports.read(u64::from(port), data);
    }

    fn port_write(&self, port: u16, data: &[u8]) -> Option<ExitReason> {
        exit_reason(self.ports.write(u64::from(port), data))
    }

    fn mmio_read(&self, address: u64, data: &mut [u8]) {
        self.mmio.read(address, data);
    }

    fn mmio_write(&self, address: u64, data: &[u8]) -> Option<ExitReason> {
        exit_reason(self.mmio.write(address, data))
    }
}

fn exit_reason(action: Action) -> Option<ExitReason> {
    match action {
        Action::None => None,
        Action::Reset => Some(ExitReason::Reset),
        Action::Poweroff => Some(ExitReason::Poweroff),
        Action::ExitStatus(status) => Some(ExitReason::ExitStatus(status)),
        Action::HostError(line) => Some(ExitReason::HostError(line)),
    }
}

/// What the vCPU threads leave behind.
#[derive(Debug, Default)]
pub(super) struct VcpuTotals {
    /// CPU time of all threads.
    pub(super) cpu_time: Duration,
    /// Instructions completed for a host that emulates guest kernel mode.
    pub(super) completions: CompletionCounts,
    /// Threads that did not end in time. They end with the process.
    pub(super) stuck: Vec<String>,
}

impl VcpuTotals {
    pub(super) fn add(&mut self, other: Self) {
        self.cpu_time += other.cpu_time;
        self.completions.add(&other.completions);
        self.stuck.extend(other.stuck);
    }
}

#[derive(Debug)]
pub(super) struct VcpuThreads {
    threads: Vec<JoinHandle<VcpuTotals>>,
    control: RunControl,
    ends: Receiver<ExitReason>,
    ended: EventFd,
}

impl VcpuThreads {
    /// Starts one thread per vCPU, each confined and paused.
    ///
    /// # Errors
    /// The host has no thread or descriptor left, or refuses what `--sandbox require` asks for. Threads started before have ended.
    pub(super) fn start(
        vcpus: Vec<Vcpu>,
        buses: &Arc<Buses>,
        confinement: &Arc<Confinement>,
    ) -> Result<Self, StartError> {
        kvm::install_kick_handler()?;
        let (sender, ends) = channel();
        let mut all = Self {
            threads: Vec::with_capacity(vcpus.len()),
            control: RunControl::default(),
            ends,
            ended: EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?,
        };
        // Until `main` is confined, too.
        all.control.pause();
        let (confined, outcomes) = channel();
        for vcpu in vcpus {
            // After an error, dropping `all` stops the threads.
            let confine = {
                let (confinement, name, confined) = (Arc::clone(confinement), vcpu_name(&vcpu), confined.clone());
                move || {
                    let outcome = confinement.confine(Thread::Vcpu, &name);
                    let is_confined = outcome.is_ok();
                    // `main` may have given up after the outcome of another thread.
                    let _ = confined.send(outcome);
                    is_confined
                }
            };
            let thread = all.spawn(vcpu, Arc::clone(buses), sender.clone(), confine)?;
            all.threads.push(thread);
        }
        drop(confined);
        outcomes.iter().collect::<Result<(), _>>()?;
        Ok(all)
    }

    fn spawn(
        &self,
        vcpu: Vcpu,
        buses: Arc<Buses>,
        sender: Sender<ExitReason>,
        confine: impl FnOnce() -> bool + Send + 'static,
    ) -> std::io::Result<JoinHandle<VcpuTotals>> {
        let (control, slot, ended) = (self.control.clone(), self.control.register(), self.ended.try_clone()?);
        Builder::new().name(vcpu_name(&vcpu)).spawn(move || {
            let (mut vcpu, _slot) = (vcpu, slot);
            if !confine() {
                return VcpuTotals::default();
            }
            // A bug of ours on one vCPU ends the machine, not only the thread.
            let reason = catch_unwind(AssertUnwindSafe(|| vcpu.run(&*buses, &control)))
                .unwrap_or_else(|_| Some(ExitReason::InternalError(format!("vCPU {} panicked", vcpu.index()))));
            if let Some(reason) = reason {
                // `main` may have given this thread up. The counter of the descriptor is far from
                // its limit.
                let _ = sender.send(reason);
                let _ = ended.write(1);
            }
            let completions = vcpu.completions().cloned().unwrap_or_default();
            VcpuTotals { cpu_time: thread_cpu_time(), completions, stuck: Vec::new() }
        })
    }

    /// Readable once a vCPU has stopped the machine.
    pub(super) fn ended(&self) -> &EventFd {
        &self.ended
    }

    /// Why a vCPU stopped the machine; each reason once, in order.
    pub(super) fn take_end(&self) -> Option<ExitReason> {
        self.ends.try_recv().ok()
    }

    /// Makes each vCPU leave the guest for a moment, so that a profile can look at it.
    pub(super) fn kick(&self) {
        self.threads.iter().for_each(kvm::kick);
    }

    /// CPU time of all threads so far.
    pub(super) fn cpu_time(&self) -> Duration {
        self.threads.iter().filter_map(kvm::cpu_time).sum()
    }

    /// Pauses all vCPUs. Returns whether none is in the guest or in a device; if one is after the
    /// limit, none stays paused.
    #[must_use]
    pub(super) fn pause(&self) -> bool {
        self.control.pause();
        self.kick();
        let paused = self.control.wait_until_paused(LEAVE_LIMIT);
        if !paused {
            self.control.resume();
        }
        paused
    }

    /// The states of all vCPUs, which are paused and stay so.
    pub(super) fn save(&self) -> Result<Vec<SavedVcpu>, SaveError> {
        Ok(self.control.save(self.threads.len(), LEAVE_LIMIT).ok_or(SaveError::Hangs)??)
    }

    pub(super) fn resume(&self) {
        self.control.resume();
    }

    /// Ends all threads. One that does not end within the limit is left behind.
    pub(super) fn stop(&mut self) -> VcpuTotals {
        self.control.stop();
        self.kick();
        // Once threads are left behind, later calls do not wait for them.
        let all_ended = self.threads.is_empty() || self.control.wait_until_paused(LEAVE_LIMIT);
        let mut totals = VcpuTotals::default();
        for thread in self.threads.drain(..) {
            if all_ended || thread.is_finished() {
                totals.add(thread.join().unwrap_or_default());
            } else {
                totals.stuck.push(thread.thread().name().unwrap_or("vcpu").to_owned());
            }
        }
        totals
    }
}

impl Drop for VcpuThreads {
    fn drop(&mut self) {
        self.stop();
    }
}

fn vcpu_name(vcpu: &Vcpu) -> String {
    format!("vcpu-{}", vcpu.index())
}

/// CPU time of the calling thread.
fn thread_cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}
