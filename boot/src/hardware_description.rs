// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How a kernel is told of hardware that it cannot detect: processors, interrupt lines, devices.
//! Plain data; any thread.
//!
//! A kernel gets exactly one of the two descriptions. With both, it would find each device twice.

use std::fmt;
use vm_memory::GuestAddress;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HardwareDescription {
    /// Devices as `virtio_mmio.device=` on the command line, processors and interrupt lines in an
    /// MP table.
    CommandLine,
    /// All of it in ACPI tables.
    Acpi,
}

impl fmt::Display for HardwareDescription {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::CommandLine => "devices on the command line",
            Self::Acpi => "devices by ACPI",
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MmioDevice {
    /// Start of the register window, which is
    /// [`VIRTIO_MMIO_WINDOW`](crate::layout::VIRTIO_MMIO_WINDOW) bytes long.
    pub window: GuestAddress,
    /// Interrupt line (global system interrupt).
    pub line: u32,
}
