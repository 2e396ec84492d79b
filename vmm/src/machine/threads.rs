// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The vCPU threads: started together, stopped together. `main` holds this; each `vcpu-N` runs one [`Vcpu`].

use super::buses::Buses;
use kvm::software::CompletionCounts;
use kvm::{ExitReason, RunControl, Vcpu};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;
use vmm_sys_util::eventfd::EventFd;

/// What the vCPUs leave behind.
#[derive(Debug, Default)]
pub(super) struct VcpuTotals {
    /// CPU time of all threads.
    pub(super) cpu_time: Duration,
    /// Instructions that were completed for the host.
    pub(super) completions: CompletionCounts,
}

/// Running vCPUs.
#[derive(Debug)]
pub(super) struct VcpuThreads {
    threads: Vec<JoinHandle<VcpuTotals>>,
    control: RunControl,
    ends: Receiver<ExitReason>,
    ended: EventFd,
}

impl VcpuThreads {
    /// Starts one thread a vCPU.
    ///
    /// # Errors
    /// The host has no more threads; those that were started have been stopped.
    pub(super) fn start(vcpus: Vec<Vcpu>, buses: &Arc<Buses>) -> std::io::Result<Self> {
        kvm::install_kick_handler()?;
        let (sender, ends) = channel();
        let mut all = Self {
            threads: Vec::with_capacity(vcpus.len()),
            control: RunControl::default(),
            ends,
            ended: EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?,
        };
        for vcpu in vcpus {
            match all.spawn(vcpu, Arc::clone(buses), sender.clone()) {
                Ok(thread) => all.threads.push(thread),
                Err(error) => {
                    all.stop();
                    return Err(error);
                }
            }
        }
        Ok(all)
    }

    fn spawn(
        &self,
        vcpu: Vcpu,
        buses: Arc<Buses>,
        sender: Sender<ExitReason>,
    ) -> std::io::Result<JoinHandle<VcpuTotals>> {
        let (control, slot, ended) = (self.control.clone(), self.control.register(), self.ended.try_clone()?);
        Builder::new().name(format!("vcpu-{}", vcpu.index())).spawn(move || {
            let (mut vcpu, _slot) = (vcpu, slot);
            // A bug of ours on one vCPU ends the machine, not just the thread.
            let reason = catch_unwind(AssertUnwindSafe(|| vcpu.run(&*buses, &control)))
                .unwrap_or_else(|_| Some(ExitReason::InternalError(format!("vCPU {} panicked", vcpu.index()))));
            if let Some(reason) = reason {
                // The receiver goes away only after this thread was joined; the counter is far from its limit.
                let _ = sender.send(reason);
                let _ = ended.write(1);
            }
            VcpuTotals { cpu_time: thread_cpu_time(), completions: vcpu.completions().cloned().unwrap_or_default() }
        })
    }

    /// Readable once a vCPU has stopped the machine.
    pub(super) fn ended(&self) -> &EventFd {
        &self.ended
    }

    /// Why the first vCPU that ended by itself did so, once.
    pub(super) fn take_end(&self) -> Option<ExitReason> {
        self.ends.try_recv().ok()
    }

    /// Kicks every vCPU out of the guest without stopping it, so that a profile can look at it.
    pub(super) fn kick(&self) {
        self.threads.iter().for_each(kvm::kick);
    }

    /// CPU time of all threads so far.
    pub(super) fn cpu_time(&self) -> Duration {
        self.threads.iter().filter_map(kvm::cpu_time).sum()
    }

    /// Takes every vCPU out of the guest and keeps it there; none runs when this returns.
    pub(super) fn hold(&self) {
        self.control.pause();
        self.kick();
        self.control.wait_until_paused();
    }

    /// Lets them go on.
    pub(super) fn release(&self) {
        self.control.resume();
    }

    /// Ends all threads.
    pub(super) fn stop(&mut self) -> VcpuTotals {
        self.control.stop();
        self.kick();
        let mut totals = VcpuTotals::default();
        for thread in self.threads.drain(..) {
            let one = thread.join().unwrap_or_default();
            totals.cpu_time += one.cpu_time;
            totals.completions.add(&one.completions);
        }
        totals
    }
}

impl Drop for VcpuThreads {
    fn drop(&mut self) {
        self.stop();
    }
}

/// CPU time of the calling thread.
fn thread_cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}
