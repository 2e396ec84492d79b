// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The first vCPU's registers at the guest's entry, as plain data, and their form as KVM's register
//! structures. Pure.

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};

/// Registers at the guest's entry. Those without a field are zero, or as a reset leaves them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryState {
    pub rip: u64,
    pub rbx: u64,
    pub rflags: u64,
    pub cr0: u64,
    pub cr4: u64,
    pub code: Segment,
    /// DS, ES, FS, GS and SS.
    pub data: Segment,
    pub task: Segment,
    pub gdt_base: u64,
    pub gdt_limit: u16,
    /// Interrupts of the PIC reach the CPUs (LINT0 in mode ExtINT). Off for kernels that never set
    /// up a PIC: a vector that it delivers before that is one of an exception.
    pub external_interrupts: bool,
}

/// A segment register: its selector, and the descriptor that the hidden part is loaded from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub selector: u16,
    /// Intel SDM volume 3, figure 3-8.
    pub descriptor: u64,
}

impl EntryState {
    pub(super) fn general_registers(&self) -> kvm_regs {
        kvm_regs { rip: self.rip, rbx: self.rbx, rflags: self.rflags, ..Default::default() }
    }

    /// Special registers over those of a vCPU after its reset.
    pub(super) fn special_registers(&self, reset: kvm_sregs) -> kvm_sregs {
        let data = self.data.loaded();
        let mut special = reset;
        special.cs = self.code.loaded();
        (special.ds, special.es, special.fs, special.gs, special.ss) = (data, data, data, data, data);
        special.tr = self.task.loaded();
        special.gdt.base = self.gdt_base;
        special.gdt.limit = self.gdt_limit;
        special.idt.base = 0;
        special.idt.limit = 0;
        special.cr0 = self.cr0;
        special.cr4 = self.cr4;
        special
    }
}

impl Segment {
    /// The register after it was loaded with the selector.
    fn loaded(self) -> kvm_segment {
        let descriptor = self.descriptor;
        let field = |shift: u32, mask: u64| (descriptor >> shift & mask) as u8;
        let limit = (descriptor & 0xffff | descriptor >> 32 & 0xf_0000) as u32;
        let pages = field(55, 1) != 0;
        kvm_segment {
            base: descriptor >> 16 & 0xff_ffff | descriptor >> 32 & 0xff00_0000,
            limit: if pages { limit << 12 | 0xfff } else { limit },
            selector: self.selector,
            type_: field(40, 0xf),
            s: field(44, 1),
            dpl: field(45, 3),
            present: field(47, 1),
            avl: field(52, 1),
            l: field(53, 1),
            db: field(54, 1),
            g: field(55, 1),
            ..Default::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_is_loaded_from_its_descriptor() {
        let flat = Segment { selector: 8, descriptor: 0x00cf_9b00_0000_ffff }.loaded();
        assert_eq!((flat.selector, flat.base, flat.limit), (8, 0, u32::MAX));
        assert_eq!((flat.type_, flat.s, flat.dpl, flat.present), (0xb, 1, 0, 1));
        assert_eq!((flat.l, flat.db, flat.g), (0, 1, 1));

        let task = Segment { selector: 0x18, descriptor: 0x1200_8b34_5678_0067 }.loaded();
        assert_eq!((task.selector, task.base, task.limit), (0x18, 0x1234_5678, 0x67));
        assert_eq!((task.type_, task.s, task.db, task.g), (0xb, 0, 0, 0));
    }
}
