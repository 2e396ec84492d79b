// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `CMPXCHG16B` (Intel SDM volume 2), atomic against the other vCPUs: the CPU's own instruction is
//! executed on the host's mapping of guest memory.
#![allow(unsafe_code)] // A 16-byte atomic access has no safe form.

use super::registers::FLAG_ZERO;
use super::step::{Step, StepError, StepResult};
use super::vcpu_state::Exception;
use super::walk::Access;
use std::arch::asm;

const SIZE: usize = 16;

/// Compares RDX:RAX with memory; if they are equal stores RCX:RBX, if not loads RDX:RAX. Atomic
/// with and without `LOCK`.
pub(super) fn cmpxchg16b(step: &mut Step<'_>) -> StepResult {
    if !std::arch::is_x86_feature_detected!("cmpxchg16b") {
        return Err(StepError::Unsupported("the host's CPU lacks it".into()));
    }
    let linear = step.linear_address(0, SIZE)?;
    step.require(linear.is_multiple_of(SIZE as u64), Exception::GENERAL_PROTECTION)?;
    let operand = step.window(0, SIZE, Access::Write)?.slice(0, SIZE)?;
    let guard = operand.ptr_guard_mut();
    let pointer = guard.as_ptr().cast::<u128>();
    if !pointer.is_aligned() {
        return Err(StepError::Unsupported("guest memory is not mapped by whole pages".into()));
    }
    let (mut low, mut high) = (step.registers.rax, step.registers.rdx);
    let equal: u8;
    // SAFETY: the CPU has the instruction; `operand` is 16 bytes of mapped guest memory, `guard`
    // keeps them mapped, and their alignment was checked. Guest memory is only accessed through raw
    // pointers and atomics: no reference aliases it. The compiler keeps RBX for itself, so it is
    // exchanged around the instruction.
    unsafe {
        asm!(
            "xchg rbx, {replacement}",
            "lock cmpxchg16b [{pointer}]",
            "mov rbx, {replacement}",
            "sete {equal}",
            replacement = inout(reg) step.registers.rbx => _,
            pointer = in(reg) pointer,
            equal = out(reg_byte) equal,
            inout("rax") low,
            inout("rdx") high,
            in("rcx") step.registers.rcx,
            options(nostack),
        );
    }
    step.registers.rax = low;
    step.registers.rdx = high;
    step.set_flags(FLAG_ZERO, if equal != 0 { FLAG_ZERO } else { 0 });
    Ok(())
}
