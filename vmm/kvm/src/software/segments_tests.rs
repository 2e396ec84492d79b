// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Instructions that examine a segment descriptor.

use super::registers::FLAG_ZERO;
use super::test_guest::{BASE, Guest};

const TABLE: u64 = 0x5000;
const KERNEL_CODE: u64 = 0x00af_9b00_0000_ffff;
const KERNEL_DATA: u64 = 0x00cf_9300_0000_ffff;
const USER_DATA: u64 = 0x00cf_f300_0000_ffff;
const EXECUTE_ONLY: u64 = 0x00af_9900_0000_ffff;
const NUMBER_7: u64 = 0x0040_f500_0000_0007;
const BUSY_TSS: u64 = 0x0000_8b00_0000_2067;
const INTERRUPT_GATE: u64 = 0x0000_8e00_0000_0000;

const VERR: &[u8] = &[0x0f, 0x00, 0xe1];
const VERW: &[u8] = &[0x0f, 0x00, 0xe9];
const LAR: &[u8] = &[0x0f, 0x02, 0xc1];
const LSL: &[u8] = &[0x0f, 0x03, 0xc1];

/// The zero flag and EAX after `code` has examined `descriptor` through a selector of privilege
/// level `requested`.
fn examine(code: &[u8], descriptor: u64, requested: u64) -> (bool, u64) {
    let mut guest = Guest::with_code(code);
    guest.poke(TABLE + 8, descriptor);
    guest.vcpu.special.gdt.base = BASE + TABLE;
    guest.vcpu.special.gdt.limit = 15;
    guest.vcpu.registers.rcx = 8 | requested;
    guest.vcpu.registers.rax = 0x55;
    guest.succeed();
    (guest.vcpu.registers.rflags & FLAG_ZERO != 0, guest.vcpu.registers.rax)
}

#[test]
fn verr_and_verw_check_type_and_privilege() {
    for (descriptor, readable, writable) in
        [(KERNEL_CODE, true, false), (KERNEL_DATA, true, true), (EXECUTE_ONLY, false, false), (BUSY_TSS, false, false)]
    {
        assert_eq!(examine(VERR, descriptor, 0).0, readable, "{descriptor:#x}");
        assert_eq!(examine(VERW, descriptor, 0).0, writable, "{descriptor:#x}");
    }
    assert!(!examine(VERW, KERNEL_DATA, 3).0, "the selector has the user's privilege level");
    assert!(examine(VERW, USER_DATA, 3).0);
}

#[test]
fn lar_and_lsl_load_rights_and_limits_that_exist() {
    assert_eq!(examine(LAR, KERNEL_CODE, 0), (true, 0x00af_9b00));
    assert_eq!(examine(LSL, KERNEL_CODE, 0), (true, 0xffff_ffff));
    assert_eq!(examine(LSL, NUMBER_7, 3), (true, 7));
    assert_eq!(examine(LSL, BUSY_TSS, 0), (true, 0x2067));
    assert_eq!(examine(LAR, INTERRUPT_GATE, 0), (false, 0x55));
    assert_eq!(examine(LSL, KERNEL_DATA, 3), (false, 0x55));
}

#[test]
fn unusable_selector_clears_the_zero_flag_without_fault() {
    for selector in [0, 3, 0x10, 0xfff8, 4, 0xc] {
        let mut guest = Guest::with_code(VERW);
        guest.vcpu.special.gdt.limit = 15;
        guest.vcpu.registers.rcx = selector;
        guest.vcpu.registers.rflags |= FLAG_ZERO;
        guest.succeed();
        assert_eq!(guest.vcpu.registers.rflags & FLAG_ZERO, 0, "{selector:#x}");
    }
}
