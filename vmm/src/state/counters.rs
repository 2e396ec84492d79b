// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a run used, counted by the host alone: `counters` of the result document and of the status.

use devices::virtio::block::DiskCounters;
use devices::virtio::net::NetCounters;
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Counters of a run; each only ever grows, but for the memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counters {
    /// CPU time of the vCPU threads, nanoseconds.
    pub(crate) cpu_vcpu_ns: u64,
    /// CPU time of all other threads.
    pub(crate) cpu_vmm_ns: u64,
    /// Memory of the process, the guest's pages included.
    pub(crate) memory_resident_bytes: u64,
    /// In the order in which the guest sees them.
    pub(crate) disks: Vec<DiskCounts>,
    /// In the order in which the guest sees them.
    pub(crate) nets: Vec<NetCounts>,
}

/// Counters of a disk.
#[allow(missing_docs, reason = "the names are the contract's")]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DiskCounts {
    pub(crate) read_bytes: u64,
    pub(crate) write_bytes: u64,
    pub(crate) read_requests: u64,
    pub(crate) write_requests: u64,
    pub(crate) flushes: u64,
    pub(crate) errors: u64,
}

/// Counters of a network interface, seen from the guest.
#[allow(missing_docs, reason = "the names are the contract's")]
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NetCounts {
    pub(crate) rx_bytes: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) rx_packets: u64,
    pub(crate) tx_packets: u64,
    pub(crate) rx_dropped: u64,
    pub(crate) tx_dropped: u64,
}

impl From<&DiskCounters> for DiskCounts {
    /// As they are now.
    fn from(counters: &DiskCounters) -> Self {
        Self {
            read_bytes: counters.read_bytes.load(Ordering::Relaxed),
            write_bytes: counters.write_bytes.load(Ordering::Relaxed),
            read_requests: counters.read_requests.load(Ordering::Relaxed),
            write_requests: counters.write_requests.load(Ordering::Relaxed),
            flushes: counters.flushes.load(Ordering::Relaxed),
            errors: counters.errors.load(Ordering::Relaxed),
        }
    }
}

impl From<&NetCounters> for NetCounts {
    /// As they are now.
    fn from(counters: &NetCounters) -> Self {
        Self {
            rx_bytes: counters.rx_bytes.load(Ordering::Relaxed),
            tx_bytes: counters.tx_bytes.load(Ordering::Relaxed),
            rx_packets: counters.rx_packets.load(Ordering::Relaxed),
            tx_packets: counters.tx_packets.load(Ordering::Relaxed),
            rx_dropped: counters.rx_dropped.load(Ordering::Relaxed),
            tx_dropped: counters.tx_dropped.load(Ordering::Relaxed),
        }
    }
}

impl Counters {
    /// The counters of this process now, `vcpu` of whose CPU time went to the vCPU threads.
    #[must_use]
    pub(crate) fn of_this_process(vcpu: Duration, disks: Vec<DiskCounts>, nets: Vec<NetCounts>) -> Self {
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let all = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let all = Duration::new(all.tv_sec.unsigned_abs(), u32::try_from(all.tv_nsec).unwrap_or_default());
        Self {
            cpu_vcpu_ns: nanoseconds(vcpu),
            cpu_vmm_ns: nanoseconds(all.saturating_sub(vcpu)),
            memory_resident_bytes: resident_bytes(&std::fs::read_to_string("/proc/self/status").unwrap_or_default()),
            disks,
            nets,
        }
    }

    /// The same, no lower than `before`: the clocks of the threads are not read at one moment.
    #[must_use]
    pub(crate) fn not_before(mut self, before: &Self) -> Self {
        self.cpu_vcpu_ns = self.cpu_vcpu_ns.max(before.cpu_vcpu_ns);
        self.cpu_vmm_ns = self.cpu_vmm_ns.max(before.cpu_vmm_ns);
        self
    }
}

/// `VmRSS` of proc_pid_status(5); 0 if there is none.
fn resident_bytes(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|rest| rest.trim().strip_suffix(" kB")).and_then(|number| number.parse().ok());
    kibibytes.unwrap_or(0_u64).saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_taken_from_its_line() {
        assert_eq!(resident_bytes("VmSize:\t  900 kB\nVmRSS:\t    12 kB\nRssAnon:\t 5 kB\n"), 12 * 1024);
        assert_eq!(resident_bytes(""), 0);
    }

    #[test]
    fn this_process_has_used_time_and_memory() {
        let counters = Counters::of_this_process(Duration::ZERO, Vec::new(), Vec::new());
        assert!(counters.cpu_vmm_ns > 0 && counters.memory_resident_bytes > 0, "{counters:?}");
    }
}
