// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Names of register bits, and access to general registers by the decoder's names (Intel SDM volume
//! 1, section 3.4; volume 3, section 2.5).

use iced_x86::Register;
use kvm_bindings::kvm_regs;

/// RFLAGS.CF.
pub(super) const FLAG_CARRY: u64 = 1 << 0;
/// RFLAGS.PF.
pub(super) const FLAG_PARITY: u64 = 1 << 2;
/// RFLAGS.AF.
pub(super) const FLAG_ADJUST: u64 = 1 << 4;
/// RFLAGS.ZF.
pub(super) const FLAG_ZERO: u64 = 1 << 6;
/// RFLAGS.SF.
pub(super) const FLAG_SIGN: u64 = 1 << 7;
/// RFLAGS.TF.
pub(super) const FLAG_TRAP: u64 = 1 << 8;
/// RFLAGS.OF.
pub(super) const FLAG_OVERFLOW: u64 = 1 << 11;
/// RFLAGS.RF.
pub(super) const FLAG_RESUME: u64 = 1 << 16;
/// RFLAGS.AC.
pub(super) const FLAG_ALIGNMENT_CHECK: u64 = 1 << 18;
/// All flags that arithmetic sets.
pub(super) const FLAGS_ARITHMETIC: u64 = FLAG_CARRY | FLAG_PARITY | FLAG_ADJUST | FLAG_ZERO | FLAG_SIGN | FLAG_OVERFLOW;

/// CR0.PE.
pub(super) const CR0_PROTECTED: u64 = 1 << 0;
/// CR0.MP.
pub(super) const CR0_MONITOR: u64 = 1 << 1;
/// CR0.EM.
pub(super) const CR0_EMULATION: u64 = 1 << 2;
/// CR0.TS.
pub(super) const CR0_TASK_SWITCHED: u64 = 1 << 3;
/// CR0.WP.
pub(super) const CR0_WRITE_PROTECT: u64 = 1 << 16;
/// CR0.PG.
pub(super) const CR0_PAGING: u64 = 1 << 31;
/// CR4.TSD.
pub(super) const CR4_TIME_STAMP_DISABLE: u64 = 1 << 2;
/// CR4.PGE.
pub(super) const CR4_GLOBAL_PAGES: u64 = 1 << 7;
/// CR4.PCIDE.
pub(super) const CR4_CONTEXT_IDENTIFIERS: u64 = 1 << 17;
/// CR4.OSFXSR.
pub(super) const CR4_FXSR: u64 = 1 << 9;
/// CR4.LA57.
pub(super) const CR4_5_LEVELS: u64 = 1 << 12;
/// CR4.FSGSBASE.
pub(super) const CR4_FS_GS_BASE: u64 = 1 << 16;
/// CR4.OSXSAVE.
pub(super) const CR4_XSAVE: u64 = 1 << 18;
/// CR4.SMEP.
pub(super) const CR4_SMEP: u64 = 1 << 20;
/// CR4.SMAP.
pub(super) const CR4_SMAP: u64 = 1 << 21;
/// CR4.PKE.
pub(super) const CR4_PROTECTION_KEYS: u64 = 1 << 22;
/// EFER.LMA.
pub(super) const EFER_LONG_MODE: u64 = 1 << 10;
/// EFER.NXE.
pub(super) const EFER_NO_EXECUTE: u64 = 1 << 11;

/// The low `size` bytes of `value`.
pub(super) fn truncate(value: u64, size: usize) -> u64 {
    if size >= 8 { value } else { value & ((1 << (8 * size)) - 1) }
}

/// The value of a general register of any width; `None` for other registers.
pub(super) fn read(registers: &kvm_regs, name: Register) -> Option<u64> {
    let mut copy = *registers;
    let full = *full(&mut copy, name)?;
    Some(if is_high_byte(name) { full >> 8 & 0xff } else { truncate(full, name.size()) })
}

/// Sets a general register of any width as an instruction does: 32-bit results clear the upper
/// half, narrower ones leave the rest unchanged. False for other registers.
pub(super) fn write(registers: &mut kvm_regs, name: Register, value: u64) -> bool {
    let Some(full) = full(registers, name) else { return false };
    *full = match name.size() {
        8 => value,
        4 => value & 0xffff_ffff,
        2 => *full & !0xffff | value & 0xffff,
        _ if is_high_byte(name) => *full & !0xff00 | (value & 0xff) << 8,
        _ => *full & !0xff | value & 0xff,
    };
    true
}

fn is_high_byte(name: Register) -> bool {
    matches!(name, Register::AH | Register::BH | Register::CH | Register::DH)
}

/// The 64-bit register that `name` is a part of.
fn full(registers: &mut kvm_regs, name: Register) -> Option<&mut u64> {
    Some(match name.full_register() {
        Register::RAX => &mut registers.rax,
        Register::RBX => &mut registers.rbx,
        Register::RCX => &mut registers.rcx,
        Register::RDX => &mut registers.rdx,
        Register::RSI => &mut registers.rsi,
        Register::RDI => &mut registers.rdi,
        Register::RSP => &mut registers.rsp,
        Register::RBP => &mut registers.rbp,
        Register::R8 => &mut registers.r8,
        Register::R9 => &mut registers.r9,
        Register::R10 => &mut registers.r10,
        Register::R11 => &mut registers.r11,
        Register::R12 => &mut registers.r12,
        Register::R13 => &mut registers.r13,
        Register::R14 => &mut registers.r14,
        Register::R15 => &mut registers.r15,
        _ => return None,
    })
}
