// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Register values at the PVH entry, as plain data: the loader never touches a vCPU. Pure; any
//! thread.
//!
//! Xen's `docs/misc/pvh.pandoc`, "PVH entry": 32-bit protected mode without paging, flat segments,
//! the start info's address in EBX, interrupts off. It leaves the descriptor table undefined. Ours
//! is in memory and matches the segment registers, so that a kernel that reloads one before it has
//! its own table does not fault.

use crate::hardware_description::HardwareDescription;
use crate::layout;
use zerocopy::IntoBytes as _;

/// Registers of the first CPU. All others are zero or have their reset value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryState {
    /// Entry of the PVH note.
    pub rip: u64,
    /// Guest-physical address of the start info.
    pub rbx: u64,
    /// Only the reserved bit that is always set.
    pub rflags: u64,
    /// Protected mode; no paging.
    pub cr0: u64,
    pub cr4: u64,
    pub code: SegmentState,
    /// DS, ES, FS, GS and SS.
    pub data: SegmentState,
    pub task: SegmentState,
    /// Guest-physical address of the descriptor table.
    pub gdt_base: u64,
    pub gdt_limit: u16,
    /// Whether the PIC's interrupts reach a CPU. They must not if the kernel does not know of a
    /// PIC: an interrupt of a PIC that was never set up arrives as an exception.
    pub external_interrupts: bool,
}

/// A segment register with its hidden part (Intel SDM volume 3, 3.4.3 and 3.4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentState {
    pub base: u64,
    /// Offset of its last byte.
    pub limit: u32,
    pub selector: u16,
    /// The descriptor's four type bits.
    pub kind: u8,
    pub present: bool,
    /// Descriptor privilege level, 0 to 3.
    pub privilege: u8,
    /// Operands and addresses are 32 bits wide by default.
    pub default_32: bool,
    /// Code or data rather than a system segment.
    pub code_or_data: bool,
    /// 64-bit code.
    pub long: bool,
    /// The descriptor's limit is in units of 4 KiB.
    pub granularity_4k: bool,
}

const CR0_PROTECTION_ENABLE: u64 = 1 << 0;
/// Cannot be cleared on current CPUs.
const CR0_EXTENSION_TYPE: u64 = 1 << 4;
const RFLAGS_ALWAYS_SET: u64 = 1 << 1;

const EXECUTE_READ_ACCESSED: u8 = 0xb;
const READ_WRITE_ACCESSED: u8 = 0x3;
const TASK_32_BUSY: u8 = 0xb;

const CODE: SegmentState = SegmentState {
    base: 0,
    limit: u32::MAX,
    selector: 0x08,
    kind: EXECUTE_READ_ACCESSED,
    present: true,
    privilege: 0,
    default_32: true,
    code_or_data: true,
    long: false,
    granularity_4k: true,
};
const DATA: SegmentState = SegmentState { selector: 0x10, kind: READ_WRITE_ACCESSED, ..CODE };
const TASK: SegmentState = SegmentState {
    limit: 0x67,
    selector: 0x18,
    kind: TASK_32_BUSY,
    default_32: false,
    code_or_data: false,
    granularity_4k: false,
    ..CODE
};

/// The descriptor table, in the order of the selectors.
const GDT: [u64; 4] = [0, CODE.descriptor(), DATA.descriptor(), TASK.descriptor()];

impl EntryState {
    /// The state that PVH defines at `entry`.
    #[must_use]
    pub fn pvh(entry: u32, description: HardwareDescription) -> Self {
        Self {
            rip: u64::from(entry),
            rbx: layout::START_INFO.0,
            rflags: RFLAGS_ALWAYS_SET,
            cr0: CR0_PROTECTION_ENABLE | CR0_EXTENSION_TYPE,
            cr4: 0,
            code: CODE,
            data: DATA,
            task: TASK,
            gdt_base: layout::GDT.0,
            gdt_limit: size_of_val(&GDT) as u16 - 1,
            external_interrupts: description == HardwareDescription::CommandLine,
        }
    }
}

impl SegmentState {
    /// Encodes the segment as a descriptor in memory (Intel SDM volume 3, figure 3-8).
    #[must_use]
    pub const fn descriptor(&self) -> u64 {
        let limit = if self.granularity_4k { self.limit >> 12 } else { self.limit } as u64;
        let base = self.base & 0xffff_ffff;
        (limit & 0xffff)
            | (base & 0xff_ffff) << 16
            | (self.kind as u64 & 0xf) << 40
            | (self.code_or_data as u64) << 44
            | (self.privilege as u64 & 3) << 45
            | (self.present as u64) << 47
            | (limit >> 16 & 0xf) << 48
            | (self.long as u64) << 53
            | (self.default_32 as u64) << 54
            | (self.granularity_4k as u64) << 55
            | (base >> 24) << 56
    }
}

/// The descriptor table's bytes, for [`layout::GDT`].
pub(crate) fn gdt() -> &'static [u8] {
    GDT.as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_flat() {
        assert_eq!(GDT, [0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x0000_8b00_0000_0067]);
    }

    #[test]
    fn selectors_select_the_descriptors_of_their_segments() {
        for segment in [CODE, DATA, TASK] {
            assert_eq!(GDT[usize::from(segment.selector / 8)], segment.descriptor());
        }
    }

    #[test]
    fn entry_is_in_protected_mode_without_paging_or_interrupts() {
        let state = EntryState::pvh(0x0100_0000, HardwareDescription::CommandLine);
        assert_eq!((state.rip, state.rbx), (0x0100_0000, layout::START_INFO.0));
        assert_eq!((state.cr0, state.cr4, state.rflags), (0x11, 0, 2));
        assert_eq!((state.gdt_base, state.gdt_limit), (layout::GDT.0, 31));
    }
}
