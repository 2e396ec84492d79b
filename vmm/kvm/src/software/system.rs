// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Instructions about the system: flags, breakpoints, segment bases, fences, caches (Intel SDM volume 2).

use super::registers::{CR4_CONTEXT_IDENTIFIERS, CR4_FS_GS_BASE, CR4_TIME_STAMP_DISABLE, FLAG_ALIGNMENT_CHECK};
use super::state::Exception;
use super::step::{Done, Step, Stop};
use super::walk::Access;
use iced_x86::Mnemonic;
use std::sync::atomic::{Ordering, fence as memory_fence};

/// Forbids the supervisor to touch user pages.
pub(super) fn clac(step: &mut Step<'_>) -> Done {
    step.require_supervisor(Exception::INVALID_OPCODE)?;
    step.set_flags(FLAG_ALIGNMENT_CHECK, 0);
    Ok(())
}

/// Allows the supervisor to touch user pages.
pub(super) fn stac(step: &mut Step<'_>) -> Done {
    step.require_supervisor(Exception::INVALID_OPCODE)?;
    step.set_flags(FLAG_ALIGNMENT_CHECK, FLAG_ALIGNMENT_CHECK);
    Ok(())
}

/// A breakpoint: #BP with RIP behind it. The guest may have set its gate's privilege level to 0.
pub(super) fn int3(_: &mut Step<'_>) -> Done {
    Err(Stop::Trap(Exception::BREAKPOINT))
}

/// #DB with RIP behind it.
pub(super) fn int1(_: &mut Step<'_>) -> Done {
    Err(Stop::Trap(Exception::DEBUG))
}

/// `UD2` and its kin, misplaced `LOCK` prefixes, bytes that are no instruction.
pub(super) fn invalid(_: &mut Step<'_>) -> Done {
    Err(Stop::Fault(Exception::INVALID_OPCODE))
}

/// The processor's number, as the kernel set it.
pub(super) fn rdpid(step: &mut Step<'_>) -> Done {
    let value = step.vcpu.tsc_aux()?;
    step.write_operand(0, value & 0xffff_ffff)
}

/// The time stamp counter and the processor's number.
pub(super) fn rdtscp(step: &mut Step<'_>) -> Done {
    if step.special.cr4 & CR4_TIME_STAMP_DISABLE != 0 {
        step.require_supervisor(Exception::GENERAL_PROTECTION)?;
    }
    let (counter, number) = (step.vcpu.time_stamp_counter()?, step.vcpu.tsc_aux()?);
    step.registers.rax = counter & 0xffff_ffff;
    step.registers.rdx = counter >> 32;
    step.registers.rcx = number & 0xffff_ffff;
    Ok(())
}

/// Forgets translations by address, address space, or altogether: here always all of them, which is always allowed.
pub(super) fn invpcid(step: &mut Step<'_>) -> Done {
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
    let accepted = kind <= ALL_BUT_GLOBAL
        && context >> 12 == 0
        && (kind > ONE_CONTEXT || context == 0 || identifiers)
        && (kind != ONE_ADDRESS || step.paging.is_canonical(address));
    step.require(accepted, Exception::GENERAL_PROTECTION)?;
    Ok(step.vcpu.flush_translations()?)
}

/// `RDFSBASE`, `RDGSBASE`.
pub(super) fn read_base(step: &mut Step<'_>) -> Done {
    require_base_instructions(step)?;
    let base = match step.instruction.mnemonic() {
        Mnemonic::Rdfsbase => step.special.fs.base,
        _ => step.special.gs.base,
    };
    step.write_operand(0, base)
}

/// `WRFSBASE`, `WRGSBASE`.
pub(super) fn write_base(step: &mut Step<'_>) -> Done {
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

fn require_base_instructions(step: &Step<'_>) -> Done {
    let available = step.is_64_bit() && step.special.cr4 & CR4_FS_GS_BASE != 0;
    step.require(available, Exception::INVALID_OPCODE)
}

/// Orders this vCPU's accesses. The exit to this code was one already; this one says so.
pub(super) fn fence(_: &mut Step<'_>) -> Done {
    memory_fence(Ordering::SeqCst);
    Ok(())
}

/// Writes a cache line back: guest memory is ordinary memory of the host, always coherent, so only the access is checked.
pub(super) fn flush_line(step: &mut Step<'_>) -> Done {
    step.window(0, 1, Access::Read)?.require(0..1)?;
    memory_fence(Ordering::SeqCst);
    Ok(())
}

/// Writes all caches back, for the supervisor alone; nothing to do for the same reason.
pub(super) fn flush_cache(step: &mut Step<'_>) -> Done {
    step.require_supervisor(Exception::GENERAL_PROTECTION)?;
    fence(step)
}
