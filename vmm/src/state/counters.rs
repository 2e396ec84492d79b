// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a machine used, counted by the host alone: `counters` of the result document and of the status.

use devices::virtio::KINDS;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Counters of a run. They only grow, except the memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counters {
    /// CPU time of the vCPU threads, nanoseconds.
    pub(crate) cpu_vcpu_ns: u64,
    /// CPU time of all other threads, nanoseconds.
    pub(crate) cpu_vmm_ns: u64,
    /// Resident memory of the process, the guest's pages included.
    pub(crate) memory_resident_bytes: u64,
    #[serde(flatten)]
    pub(crate) devices: DeviceLists,
}

/// `disks`, `nets` and the like: a list for each type of device that has counters, in the order in which the guest sees the
/// devices. The names are those of `devices`, and part of the contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DeviceLists(BTreeMap<String, Vec<BTreeMap<String, u64>>>);

impl Default for DeviceLists {
    /// Every list, without a device.
    fn default() -> Self {
        let names = KINDS.iter().filter_map(|kind| kind.counters);
        Self(names.map(|name| (name.to_owned(), Vec::new())).collect())
    }
}

impl DeviceLists {
    /// Adds the counters of one device.
    pub(crate) fn push(&mut self, list: &str, counters: Vec<(&str, u64)>) {
        let counters = counters.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        self.0.entry(list.to_owned()).or_default().push(counters);
    }

    /// Sum of one counter over the devices of a list.
    pub(crate) fn sum(&self, list: &str, counter: &str) -> u64 {
        self.0.get(list).into_iter().flatten().filter_map(|device| device.get(counter)).sum()
    }
}

impl Counters {
    /// The counters of this process now, with `vcpu` as the part of its CPU time that went to the vCPU threads.
    #[must_use]
    pub(crate) fn of_this_process(vcpu: Duration, devices: DeviceLists) -> Self {
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let all = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let all = Duration::new(all.tv_sec.unsigned_abs(), u32::try_from(all.tv_nsec).unwrap_or_default());
        Self {
            cpu_vcpu_ns: nanoseconds(vcpu),
            cpu_vmm_ns: nanoseconds(all.saturating_sub(vcpu)),
            memory_resident_bytes: resident_bytes(&std::fs::read_to_string("/proc/self/status").unwrap_or_default()),
            devices,
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
    fn resident_memory_is_read_from_its_line() {
        assert_eq!(resident_bytes("VmSize:\t  900 kB\nVmRSS:\t    12 kB\nRssAnon:\t 5 kB\n"), 12 * 1024);
        assert_eq!(resident_bytes(""), 0);
    }

    #[test]
    fn counters_of_this_process_are_not_zero() {
        let counters = Counters::of_this_process(Duration::ZERO, DeviceLists::default());
        assert!(counters.cpu_vmm_ns > 0 && counters.memory_resident_bytes > 0, "{counters:?}");
    }

    #[test]
    fn counters_of_devices_are_lists_in_the_document() {
        let mut counters = Counters::default();
        counters.devices.push("disks", vec![("read_bytes", 1), ("errors", 2)]);
        counters.devices.push("disks", vec![("read_bytes", 3)]);
        let json = serde_json::to_value(&counters).unwrap();
        assert_eq!(json["disks"][0], serde_json::json!({ "read_bytes": 1, "errors": 2 }));
        assert_eq!(json["nets"], serde_json::json!([]));
        assert_eq!(serde_json::from_value::<Counters>(json).unwrap(), counters);
        assert_eq!((counters.devices.sum("disks", "read_bytes"), counters.devices.sum("nets", "rx_bytes")), (4, 0));
    }
}
