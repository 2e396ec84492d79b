// SPDX-License-Identifier: Apache-2.0 OR MIT
//! From the loader's plain [`EntryState`] to KVM's register structures. Pure.

use boot::entry_state::{EntryState, SegmentState};
use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};

/// General registers at the kernel's entry.
pub(super) fn general(entry: &EntryState) -> kvm_regs {
    kvm_regs { rip: entry.rip, rbx: entry.rbx, rflags: entry.rflags, ..Default::default() }
}

/// Special registers at the kernel's entry, over those that a new vCPU has.
pub(super) fn special(entry: &EntryState, reset: kvm_sregs) -> kvm_sregs {
    let data = segment(&entry.data);
    let mut special = reset;
    special.cs = segment(&entry.code);
    (special.ds, special.es, special.fs, special.gs, special.ss) = (data, data, data, data, data);
    special.tr = segment(&entry.task);
    special.gdt.base = entry.gdt_base;
    special.gdt.limit = entry.gdt_limit;
    special.idt.base = 0;
    special.idt.limit = 0;
    special.cr0 = entry.cr0;
    special.cr4 = entry.cr4;
    special
}

fn segment(state: &SegmentState) -> kvm_segment {
    kvm_segment {
        base: state.base,
        limit: state.limit,
        selector: state.selector,
        type_: state.kind,
        present: u8::from(state.present),
        dpl: state.privilege,
        db: u8::from(state.default_32),
        s: u8::from(state.code_or_data),
        l: u8::from(state.long),
        g: u8::from(state.granularity_4k),
        ..Default::default()
    }
}
