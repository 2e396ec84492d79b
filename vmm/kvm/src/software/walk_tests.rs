// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The page walk: rights, faults and their codes, accessed and dirty bits, large pages.

use super::Exception;
use super::registers::{
    CR0_PAGING, CR0_WRITE_PROTECT, CR4_5_LEVELS, CR4_PROTECTION_KEYS, CR4_SMAP, CR4_SMEP, EFER_NO_EXECUTE,
    FLAG_ALIGNMENT_CHECK,
};
use super::test_guest::{
    BASE, CODE, DATA, DIRECTORY, Guest, NO_EXECUTE, POINTERS, PRESENT, ROOT, TABLE, USER, WRITABLE,
};
use super::walk::{Access, Paging, WalkError};
use vm_memory::GuestAddress;

const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const PAGE: u64 = BASE + DATA;

/// Translates an address in a data page with `entry`, after `change` was applied to the paging.
fn walk(entry: u64, access: Access, change: impl FnOnce(&mut Paging)) -> Result<u64, WalkError> {
    let guest = Guest::with_code(&[]);
    guest.map(DATA, DATA | entry);
    translate(&guest, PAGE + 0x123, access, change)
}

fn translate(guest: &Guest, linear: u64, access: Access, change: impl FnOnce(&mut Paging)) -> Result<u64, WalkError> {
    let mut paging = Paging::new(&guest.vcpu.registers, &guest.vcpu.special, 46);
    change(&mut paging);
    paging.translate(&guest.memory, linear, access).map(|address| address.0)
}

#[test]
fn rights_are_checked_with_their_error_codes() {
    use Access::{Fetch, Read, Write};
    const DATA_OK: Result<u64, WalkError> = Ok(DATA + 0x123);
    let fault = |code| Err(WalkError::Fault(code));
    let same = |_: &mut Paging| {};
    let user = |paging: &mut Paging| paging.user = true;

    assert_eq!(walk(PRESENT | WRITABLE, Write, same), DATA_OK);
    assert_eq!(walk(0, Read, same), fault(0));
    assert_eq!(walk(0, Write, user), fault(2 | 4));
    assert_eq!(walk(PRESENT, Read, same), DATA_OK);
    assert_eq!(walk(PRESENT, Write, same), fault(1 | 2));
    assert_eq!(walk(PRESENT, Write, |paging| paging.cr0 &= !CR0_WRITE_PROTECT), DATA_OK);
    assert_eq!(walk(PRESENT | WRITABLE, Read, user), fault(1 | 4));
    assert_eq!(walk(PRESENT | USER, Read, user), DATA_OK);
    assert_eq!(walk(PRESENT | USER, Write, user), fault(1 | 2 | 4));
    assert_eq!(walk(PRESENT | NO_EXECUTE, Fetch, same), fault(1 | 16));
    assert_eq!(walk(PRESENT | NO_EXECUTE, Read, same), DATA_OK);
}

#[test]
fn smap_smep_and_protection_keys_apply_to_the_supervisor() {
    use Access::{Fetch, Read, Write};
    let fault = |code| Err(WalkError::Fault(code));
    let smap = |paging: &mut Paging| paging.cr4 |= CR4_SMAP;
    let keys = |pkru| {
        move |paging: &mut Paging| {
            paging.cr4 |= CR4_PROTECTION_KEYS;
            paging.pkru = pkru;
        }
    };
    let key_3 = 3 << 59 | PRESENT | USER | WRITABLE;

    assert_eq!(walk(PRESENT | USER, Read, |_| {}), Ok(DATA + 0x123));
    assert_eq!(walk(PRESENT | USER, Read, smap), fault(1));
    let allowed = |paging: &mut Paging| {
        smap(paging);
        paging.alignment_check = true;
    };
    assert_eq!(walk(PRESENT | USER, Read, allowed), Ok(DATA + 0x123));
    assert_eq!(walk(PRESENT | USER, Fetch, |paging| paging.cr4 |= CR4_SMEP), fault(1 | 16));
    assert_eq!(walk(key_3, Read, keys(1 << 6)), fault(1 | 32));
    assert_eq!(walk(key_3, Write, keys(2 << 6)), fault(1 | 2 | 32));
    assert_eq!(walk(key_3, Read, keys(2 << 6)), Ok(DATA + 0x123));
}

#[test]
fn right_missing_at_one_level_is_denied() {
    let guest = Guest::with_code(&[]);
    let entry = DIRECTORY + 8 * (BASE >> 21 & 0x1ff);
    guest.poke(entry, TABLE | PRESENT | USER);
    assert_eq!(translate(&guest, PAGE, Access::Write, |_| {}), Err(WalkError::Fault(3)));
}

#[test]
fn reserved_bits_fault() {
    let reserved = Err(WalkError::Fault(1 | 8));
    assert_eq!(walk(PRESENT | 1 << 46, Access::Read, |_| {}), reserved);
    assert_eq!(walk(PRESENT | NO_EXECUTE, Access::Read, |paging| paging.efer &= !EFER_NO_EXECUTE), reserved);
}

#[test]
fn accessed_and_dirty_bits_are_set_by_permitted_accesses() {
    let guest = Guest::with_code(&[]);
    let root = ROOT + 8 * (BASE >> 39 & 0x1ff);
    let pointers = POINTERS + 8 * (BASE >> 30 & 0x1ff);

    guest.map(DATA, DATA | PRESENT);
    assert!(translate(&guest, PAGE, Access::Write, |_| {}).is_err());
    assert_eq!(guest.entry(DATA), DATA | PRESENT);
    assert_eq!(guest.peek(root) & ACCESSED, 0);

    translate(&guest, PAGE, Access::Read, |_| {}).unwrap();
    assert_eq!(guest.entry(DATA), DATA | PRESENT | ACCESSED);
    assert_eq!(guest.peek(root) & (ACCESSED | DIRTY), ACCESSED);

    guest.map(DATA, DATA | PRESENT | WRITABLE);
    translate(&guest, PAGE, Access::Write, |_| {}).unwrap();
    assert_eq!(guest.entry(DATA), DATA | PRESENT | WRITABLE | ACCESSED | DIRTY);
    assert_eq!(guest.peek(pointers) & (ACCESSED | DIRTY), ACCESSED);
}

#[test]
fn large_pages_take_their_offset_from_the_address() {
    let guest = Guest::with_code(&[]);
    let directory = DIRECTORY + 8 * (BASE >> 21 & 0x1ff);
    let pointers = POINTERS + 8 * (BASE >> 30 & 0x1ff);
    // The PAT bit is not an address bit.
    guest.poke(directory, 0x4020_0000 | 1 << 12 | LARGE | PRESENT);
    assert_eq!(translate(&guest, BASE + 0x12_3456, Access::Read, |_| {}), Ok(0x4032_3456));
    guest.poke(directory, 0x4020_2000 | LARGE | PRESENT);
    assert_eq!(translate(&guest, BASE, Access::Read, |_| {}), Err(WalkError::Fault(1 | 8)));
    guest.poke(pointers, 0x8000_0000 | LARGE | PRESENT);
    assert_eq!(translate(&guest, BASE + 0x1234_5678, Access::Read, |_| {}), Ok(0x9234_5678));
    let root = ROOT + 8 * (BASE >> 39 & 0x1ff);
    guest.poke(root, POINTERS | LARGE | PRESENT);
    assert_eq!(translate(&guest, BASE, Access::Read, |_| {}), Err(WalkError::Fault(1 | 8)));
}

#[test]
fn fifth_level_is_walked_when_enabled() {
    let guest = Guest::with_code(&[]);
    let top = 0x5000;
    let linear = 0xff11_0000_0000_0000_u64;
    guest.poke(top + 8 * (linear >> 48 & 0x1ff), ROOT | PRESENT | WRITABLE);
    guest.poke(ROOT, POINTERS | PRESENT | WRITABLE);
    guest.poke(POINTERS, DIRECTORY | PRESENT | WRITABLE);
    guest.poke(DIRECTORY, TABLE | PRESENT | WRITABLE);
    let five = |paging: &mut Paging| {
        paging.cr4 |= CR4_5_LEVELS;
        paging.cr3 = top;
    };
    assert_eq!(translate(&guest, linear + DATA, Access::Read, five), Ok(DATA));
    assert_eq!(translate(&guest, linear + DATA, Access::Read, |_| {}), Err(WalkError::NotCanonical));
}

#[test]
fn address_is_physical_without_paging() {
    let guest = Guest::with_code(&[]);
    let off = |paging: &mut Paging| paging.cr0 &= !CR0_PAGING;
    assert_eq!(translate(&guest, 0x1234, Access::Write, off), Ok(0x1234));
}

#[test]
fn table_outside_memory_ends_the_walk() {
    let guest = Guest::with_code(&[]);
    let outside = |paging: &mut Paging| paging.cr3 = 0x7fff_f000;
    let entry = GuestAddress(0x7fff_f000 + 8 * (BASE >> 39 & 0x1ff));
    assert_eq!(translate(&guest, BASE, Access::Read, outside), Err(WalkError::TableOutside(entry)));
}

#[test]
fn operand_fault_is_raised_with_its_address() {
    // popcnt rax, [rbx]
    let mut guest = Guest::with_code(&[0xf3, 0x48, 0x0f, 0xb8, 0x03]);
    guest.map(DATA, DATA | PRESENT | USER);
    guest.vcpu.special.cr4 |= CR4_SMAP;
    assert_eq!(guest.fault(), Exception::page_fault(PAGE, 1));
    assert_eq!(guest.vcpu.special.cr2, PAGE);
    guest.vcpu.registers.rflags |= FLAG_ALIGNMENT_CHECK;
    guest.succeed();
}

#[test]
fn operand_faults_at_its_first_inaccessible_byte() {
    // movnti [rbx], rcx
    let mut guest = Guest::with_code(&[0x48, 0x0f, 0xc3, 0x0b]);
    guest.vcpu.registers.rbx = PAGE + 0xffe;
    guest.vcpu.registers.rcx = u64::MAX;
    guest.map(DATA + 0x1000, 0);
    assert_eq!(guest.fault(), Exception::page_fault(PAGE + 0x1000, 2));
    assert_eq!(guest.bytes(DATA + 0xffe, 2), [0, 0], "no byte is written before both pages are checked");
}

#[test]
fn page_after_an_instruction_is_not_accessed() {
    let mut guest = Guest::with_code(&[]);
    guest.map(CODE + 0x1000, 0);
    // ud2 in the last two bytes of its page, then one whose second byte is on the next.
    guest.vcpu.registers.rip = BASE + CODE + 0xffe;
    guest.poke(CODE + 0xff8, 0x0b0f_0000_0000_0000);
    assert_eq!(guest.fault(), Exception::INVALID_OPCODE);
    guest.vcpu.registers.rip = BASE + CODE + 0xfff;
    guest.poke(CODE + 0xff8, 0x0f00_0000_0000_0000);
    assert_eq!(guest.fault(), Exception::page_fault(BASE + CODE + 0x1000, 16));
}
