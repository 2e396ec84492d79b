// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is known of a device type besides its code: the guest's driver for it, and its counters. The machine's hints,
//! kernel modules and status documents are made from this table, so that a new device needs no change there. Plain data.

use super::{block, console, net, rng};

/// A device type.
#[derive(Debug, PartialEq, Eq)]
pub struct DeviceKind {
    /// Number of the device type (virtio 1.3, section 5).
    pub device_id: u32,
    /// Kernel option of the driver, e.g. `CONFIG_VIRTIO_BLK`.
    pub kernel_option: &'static str,
    /// Kernel module of the driver, e.g. `virtio_blk`. A kernel with the driver built in contains the name as a string.
    pub kernel_module: &'static str,
    /// A guest does without a driver for this device.
    pub optional: bool,
    /// Name of the list in status documents that has an entry for each device of this type, e.g. `disks`.
    pub counters: Option<&'static str>,
}

/// Every device type.
pub const KINDS: [&DeviceKind; 4] = [&console::KIND, &block::KIND, &net::KIND, &rng::KIND];

/// Counters of one device. They only grow, and are read from any thread.
pub trait DeviceCounters: std::fmt::Debug + Send + Sync {
    /// Names, as in status documents, and values at this moment.
    fn snapshot(&self) -> Vec<(&'static str, u64)>;
}
