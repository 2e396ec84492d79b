// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What differs between CPUs by vendor and model, as far as completions depend on it. On a host
//! that emulates guest kernel mode, guest user mode runs on the host's CPU, so the guest's CPU has
//! the host's values. Read once, shared by the vCPUs.
#![allow(unsafe_code)] // FXSAVE, RDRAND.

use super::xsave_layout::{MXCSR_MASK, XstateLayout};
use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count, _fxsave};

const LEAF_XSTATE: u32 = 0xd;
const LEAF_ADDRESS_SIZES: u32 = 0x8000_0008;
/// Width of a physical address on CPUs without [`LEAF_ADDRESS_SIZES`].
const DEFAULT_PHYSICAL_ADDRESS_BITS: u32 = 36;
/// The MXCSR_MASK that zero stands for (Intel SDM volume 1, 11.6.6).
const MXCSR_MASK_DEFAULT: u32 = 0xffbf;

/// Fixed properties of a CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Processor {
    /// Sizes and offsets of the components of an XSAVE area.
    pub(super) xstate: XstateLayout,
    /// The bits of MXCSR that may be set: 0xffff on Intel, 0x2ffff (with bit 17, misaligned SSE) on
    /// AMD.
    pub mxcsr_mask: u32,
    /// Page-table bits above are reserved.
    pub physical_address_bits: u32,
}

impl Processor {
    /// The CPU that this process runs on.
    pub fn host() -> Self {
        let maximum = __cpuid(0).eax;
        let xstate = XstateLayout::new(|number| {
            if maximum < LEAF_XSTATE {
                return (0, 0, 0);
            }
            let leaf = __cpuid_count(LEAF_XSTATE, number);
            (leaf.eax, leaf.ebx, leaf.ecx)
        });
        let physical_address_bits = if __cpuid(0x8000_0000).eax >= LEAF_ADDRESS_SIZES {
            __cpuid(LEAF_ADDRESS_SIZES).eax & 0xff
        } else {
            DEFAULT_PHYSICAL_ADDRESS_BITS
        };
        Self { xstate, mxcsr_mask: host_mxcsr_mask(), physical_address_bits: physical_address_bits.clamp(32, 52) }
    }
}

/// A random number of the CPU that this process runs on. `None` if it has none ready, or lacks RDRAND.
pub(super) fn random() -> Option<u64> {
    if !std::arch::is_x86_feature_detected!("rdrand") {
        return None;
    }
    let (number, is_ready): (u64, u8);
    // SAFETY: the CPU has the instruction, which changes the register and the flags.
    unsafe {
        asm!("rdrand {number}", "setc {is_ready}", number = out(reg) number, is_ready = out(reg_byte) is_ready,
            options(nomem, nostack));
    }
    (is_ready == 1).then_some(number)
}

fn host_mxcsr_mask() -> u32 {
    #[repr(align(16))]
    struct Area([u8; 512]);
    let mut area = Area([0; 512]);
    // SAFETY: every x86-64 CPU has FXSAVE; the area has its size and alignment.
    unsafe { _fxsave(area.0.as_mut_ptr()) };
    let mut mask = [0; 4];
    mask.copy_from_slice(&area.0[MXCSR_MASK]);
    match u32::from_le_bytes(mask) {
        0 => MXCSR_MASK_DEFAULT,
        mask => mask,
    }
}
