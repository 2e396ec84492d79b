// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What completions must know about the CPU that the guest runs on. On a host that emulates guest kernel mode, guest
//! user mode runs on the real CPU, so it is the host's. Read once, shared by the vCPUs.

use std::arch::x86_64::{__cpuid, __cpuid_count};

use super::layout::XstateLayout;

/// What is fixed about a CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Processor {
    /// Where the components of an XSAVE area are.
    pub(super) xstate: XstateLayout,
    /// Width of a physical address; page-table bits above are reserved.
    pub physical_address_bits: u32,
}

impl Processor {
    /// The CPU that this process runs on.
    pub fn host() -> Self {
        let highest = __cpuid(0).eax;
        let xstate = XstateLayout::new(|number| {
            if highest < 0xd {
                return (0, 0, 0);
            }
            let leaf = __cpuid_count(0xd, number);
            (leaf.eax, leaf.ebx, leaf.ecx)
        });
        let extended = __cpuid(0x8000_0000).eax;
        let physical_address_bits = if extended >= 0x8000_0008 { __cpuid(0x8000_0008).eax & 0xff } else { 36 };
        Self { xstate, physical_address_bits: physical_address_bits.clamp(32, 52) }
    }
}
