// SPDX-License-Identifier: Apache-2.0 OR MIT
//! System instructions: flags, breakpoints, segment bases, fences, caches (Intel SDM volume 2).

use super::registers::{CR4_CONTEXT_IDENTIFIERS, CR4_FS_GS_BASE, CR4_TIME_STAMP_DISABLE, FLAG_ALIGNMENT_CHECK};
use super::step::{Step, StepError, StepResult};
use super::vcpu_state::Exception;
use super::walk::Access;
use iced_x86::Mnemonic;
use std::sync::atomic::{Ordering, fence as memory_fence};

/// Forbids the supervisor to access user pages.
pub(super) fn clac(step: &mut Step<'_>) -> StepResult {
    step.require_supervisor(Exception::INVALID_OPCODE)?;
    step.set_flags(FLAG_ALIGNMENT_CHECK, 0);
    Ok(())
}

/// Allows the supervisor to access user pages.
pub(super) fn stac(step: &mut Step<'_>) -> StepResult {
    step.require_supervisor(Exception::INVALID_OPCODE)?;
    step.set_flags(FLAG_ALIGNMENT_CHECK, FLAG_ALIGNMENT_CHECK);
    Ok(())
}

/// #BP with RIP after the instruction, whatever the privilege level of its gate.
pub(super) fn int3(_: &mut Step<'_>) -> StepResult {
    Err(StepError::Trap(Exception::BREAKPOINT))
}

/// #DB with RIP after the instruction.
pub(super) fn int1(_: &mut Step<'_>) -> StepResult {
    Err(StepError::Trap(Exception::DEBUG))
}

/// `UD0`, `UD1`, `UD2`, misplaced `LOCK` prefixes, invalid bytes.
pub(super) fn invalid(_: &mut Step<'_>) -> StepResult {
    Err(StepError::Fault(Exception::INVALID_OPCODE))
}

/// Reads IA32_TSC_AUX: the processor's number, set by the kernel.
pub(super) fn rdpid(step: &mut Step<'_>) -> StepResult {
    let value = step.vcpu.tsc_aux()?;
    step.write_operand(0, value & 0xffff_ffff)
}

/// Reads the time stamp counter and IA32_TSC_AUX.
pub(super) fn rdtscp(step: &mut Step<'_>) -> StepResult {
    if step.special.cr4 & CR4_TIME_STAMP_DISABLE != 0 {
        step.require_supervisor(Exception::GENERAL_PROTECTION)?;
    }
    let (counter, number) = (step.vcpu.time_stamp_counter()?, step.vcpu.tsc_aux()?);
    step.registers.rax = counter & 0xffff_ffff;
    step.registers.rdx = counter >> 32;
    step.registers.rcx = number & 0xffff_ffff;
    Ok(())
}

/// Invalidates translations. Every type invalidates all of them here, which the architecture
/// permits.
pub(super) fn invpcid(step: &mut Step<'_>) -> StepResult {
    const ONE_ADDRESS: u64 = 0;
    const ONE_CONTEXT: u64 = 1;
    const ALL_BUT_GLOBAL: u64 = 3;
    step.require_supervisor(Exception::GENERAL_PROTECTION)?;
    let kind = step.read_operand(0)?;
    let mut descriptor = [0; 16];
    step.window(1, descriptor.len(), Access::Read)?.read(0, &mut descriptor)?;
    let descriptor = u128::from_le_bytes(descriptor);
    let (context, address) = (descriptor as u64, (descriptor >> 64) as u64);
    let identifiers = step.special.cr4 & CR4_CONTEXT_IDENTIFIERS != 0;
    let valid = kind <= ALL_BUT_GLOBAL
        && context >> 12 == 0
        && (kind > ONE_CONTEXT || context == 0 || identifiers)
        && (kind != ONE_ADDRESS || step.paging.is_canonical(address));
    step.require(valid, Exception::GENERAL_PROTECTION)?;
    Ok(step.vcpu.flush_translations()?)
}

/// `RDFSBASE`, `RDGSBASE`.
pub(super) fn read_base(step: &mut Step<'_>) -> StepResult {
    require_base_instructions(step)?;
    let base = match step.instruction.mnemonic() {
        Mnemonic::Rdfsbase => step.special.fs.base,
        _ => step.special.gs.base,
    };
    step.write_operand(0, base)
}

/// `WRFSBASE`, `WRGSBASE`.
pub(super) fn write_base(step: &mut Step<'_>) -> StepResult {
    require_base_instructions(step)?;
    let base = step.read_operand(0)?;
    step.require(step.paging.is_canonical(base), Exception::GENERAL_PROTECTION)?;
    match step.instruction.mnemonic() {
        Mnemonic::Wrfsbase => step.special.fs.base = base,
        _ => step.special.gs.base = base,
    }
    step.special_changed = true;
    Ok(())
}

fn require_base_instructions(step: &Step<'_>) -> StepResult {
    let available = step.is_64_bit() && step.special.cr4 & CR4_FS_GS_BASE != 0;
    step.require(available, Exception::INVALID_OPCODE)
}

/// Orders this vCPU's accesses. The exit has done so already; the fence does not rely on it.
pub(super) fn fence(_: &mut Step<'_>) -> StepResult {
    memory_fence(Ordering::SeqCst);
    Ok(())
}

/// Writes a cache line back. Guest memory is ordinary, coherent memory of the host, so only the
/// access is checked.
pub(super) fn flush_line(step: &mut Step<'_>) -> StepResult {
    step.window(0, 1, Access::Read)?.require(0..1)?;
    memory_fence(Ordering::SeqCst);
    Ok(())
}

/// Writes all caches back. Only the privilege is checked, for the same reason.
pub(super) fn flush_cache(step: &mut Step<'_>) -> StepResult {
    step.require_supervisor(Exception::GENERAL_PROTECTION)?;
    fence(step)
}
