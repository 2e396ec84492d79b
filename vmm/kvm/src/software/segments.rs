// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Instructions that examine a segment descriptor: `VERR`, `VERW`, `LAR`, `LSL` (Intel SDM volume
//! 2; volume 3, section 3.4.5). Kernels use `VERW` against CPU bugs and `LSL` to find the number of
//! the processor. A selector that cannot be used clears the zero flag and raises no fault.

use super::registers::FLAG_ZERO;
use super::step::{Step, StepError, StepResult};
use super::walk::Access;
use super::window::Window;

/// Bit of a selector: the descriptor is in the local table.
const LOCAL: u16 = 1 << 2;
const REQUESTED_PRIVILEGE: u16 = 3;

/// Type bits of a code or data segment.
const CODE: u8 = 1 << 3;
const CONFORMING: u8 = 1 << 2;
/// Code: readable; data: writable.
const READABLE_OR_WRITABLE: u8 = 1 << 1;
/// Types of system descriptors in long mode. LDT and TSS have a limit; a call gate has rights only.
const LDT: u8 = 2;
const TSS_AVAILABLE: u8 = 9;
const TSS_BUSY: u8 = 11;
const CALL_GATE: u8 = 12;

/// An entry of a descriptor table.
#[derive(Clone, Copy)]
struct Descriptor(u64);

impl Descriptor {
    fn kind(self) -> u8 {
        (self.0 >> 40 & 0xf) as u8
    }

    fn is_system(self) -> bool {
        self.0 & 1 << 44 == 0
    }

    fn privilege(self) -> u16 {
        (self.0 >> 45 & 3) as u16
    }

    fn limit(self) -> u64 {
        let limit = self.0 & 0xffff | self.0 >> 32 & 0xf_0000;
        if self.0 & 1 << 55 != 0 { limit << 12 | 0xfff } else { limit }
    }

    fn is_conforming_code(self) -> bool {
        !self.is_system() && self.kind() & (CODE | CONFORMING) == CODE | CONFORMING
    }
}

/// Sets the zero flag if the segment is readable.
pub(super) fn verr(step: &mut Step<'_>) -> StepResult {
    verify(step, |kind| kind & CODE == 0 || kind & READABLE_OR_WRITABLE != 0)
}

/// Sets the zero flag if the segment is writable.
pub(super) fn verw(step: &mut Step<'_>) -> StepResult {
    verify(step, |kind| kind & (CODE | READABLE_OR_WRITABLE) == READABLE_OR_WRITABLE)
}

/// Loads the rights of a segment.
pub(super) fn lar(step: &mut Step<'_>) -> StepResult {
    load(step, &[LDT, TSS_AVAILABLE, TSS_BUSY, CALL_GATE], |descriptor| descriptor.0 >> 32 & 0x00ff_ff00)
}

/// Loads the limit of a segment, in bytes.
pub(super) fn lsl(step: &mut Step<'_>) -> StepResult {
    load(step, &[LDT, TSS_AVAILABLE, TSS_BUSY], Descriptor::limit)
}

fn verify(step: &mut Step<'_>, allowed: impl Fn(u8) -> bool) -> StepResult {
    let descriptor = accessible(step, 0)?.filter(|found| !found.is_system() && allowed(found.kind()));
    set_zero_flag(step, descriptor.is_some());
    Ok(())
}

fn load(step: &mut Step<'_>, system: &[u8], value: impl Fn(Descriptor) -> u64) -> StepResult {
    let descriptor = accessible(step, 1)?.filter(|found| !found.is_system() || system.contains(&found.kind()));
    set_zero_flag(step, descriptor.is_some());
    descriptor.map_or(Ok(()), |descriptor| step.write_operand(0, value(descriptor)))
}

fn set_zero_flag(step: &mut Step<'_>, usable: bool) {
    step.set_flags(FLAG_ZERO, if usable { FLAG_ZERO } else { 0 });
}

/// The descriptor that operand `number` selects, if it exists and the privilege levels permit its
/// use.
fn accessible(step: &mut Step<'_>, number: u32) -> StepResult<Option<Descriptor>> {
    if !step.is_64_bit() {
        return Err(StepError::Unsupported("descriptors outside 64-bit mode".into()));
    }
    let selector = step.read_operand(number)? as u16;
    let (base, limit) = if selector & LOCAL != 0 {
        let local = &step.special.ldt;
        (local.base, if local.unusable == 0 && local.present != 0 { u64::from(local.limit) } else { 0 })
    } else {
        (step.special.gdt.base, u64::from(step.special.gdt.limit))
    };
    let offset = u64::from(selector & !(LOCAL | REQUESTED_PRIVILEGE));
    let is_null = selector & !REQUESTED_PRIVILEGE == 0;
    if is_null || offset + 7 > limit {
        return Ok(None);
    }
    let mut bytes = [0; 8];
    let linear = base.wrapping_add(offset);
    Window::new(step.memory, step.paging.implicit(), linear, Access::Read).read(0, &mut bytes)?;
    let descriptor = Descriptor(u64::from_le_bytes(bytes));
    let privilege = u16::from(step.special.ss.dpl).max(selector & REQUESTED_PRIVILEGE);
    Ok(Some(descriptor).filter(|found| found.is_conforming_code() || privilege <= found.privilege()))
}
