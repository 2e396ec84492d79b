// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `XSAVE`, `XSAVEOPT`, `XSAVEC`, `XSAVES`, `FXSAVE` and `XGETBV` (Intel SDM volume 1, chapter 13;
//! volume 2).
//!
//! | instruction | format | writes |
//! |---|---|---|
//! | `XSAVE` | standard | every requested component, initial ones too |
//! | `XSAVEOPT` | standard | requested components in use; the optional skip of unmodified ones is not implemented |
//! | `XSAVEC`, `XSAVES` | compacted | requested components in use |
//!
//! Error pointers (opcode, instruction and data pointer) are always saved and restored, as on Intel
//! and on AMD since Zen. Older AMD CPUs do so only while an exception is pending, and their kernels
//! clear the pointers themselves.
//!
//! Not supported: supervisor components (IA32_XSS is zero: `cpuid.rs` offers none), modes other
//! than 64-bit, AMD's fast FXSAVE (EFER.FFXSR, which Linux does not set).

use super::extended_state::ExtendedState;
use super::registers::{CR0_TASK_SWITCHED, CR4_XSAVE};
use super::step::{Step, StepError, StepResult};
use super::vcpu_state::Exception;
use super::walk::Access;
use super::window::Window;
use super::xsave_layout::{
    AREA_ALIGNMENT, AVX, COMPACTED, HEADER, MXCSR, MXCSR_INITIAL, SSE, X87, X87_CONTROL, X87_REGISTERS, XCOMP_BV,
    XMM_REGISTERS, XSTATE_BV, extended,
};
use iced_x86::Mnemonic;

pub(super) fn xsave(step: &mut Step<'_>) -> StepResult {
    save_standard(step, false)
}

pub(super) fn xsaveopt(step: &mut Step<'_>) -> StepResult {
    save_standard(step, true)
}

pub(super) fn xsavec(step: &mut Step<'_>) -> StepResult {
    save_compacted(step, false)
}

pub(super) fn xsaves(step: &mut Step<'_>) -> StepResult {
    save_compacted(step, true)
}

/// The operands that all instructions of this family share.
pub(super) struct Area<'a> {
    pub(super) window: Window<'a>,
    /// Components that an area may hold: XCR0, with IA32_XSS for `XSAVES` and `XRSTORS`.
    pub(super) enabled: u64,
    /// The enabled components in EDX:EAX.
    pub(super) requested: u64,
}

/// The checks that precede every access to an XSAVE area.
pub(super) fn area<'a>(step: &mut Step<'a>, supervisor: bool, access: Access) -> StepResult<Area<'a>> {
    if !step.is_64_bit() {
        return Err(StepError::Unsupported("extended state outside 64-bit mode".into()));
    }
    step.require(step.special.cr4 & CR4_XSAVE != 0, Exception::INVALID_OPCODE)?;
    step.require(step.special.cr0 & CR0_TASK_SWITCHED == 0, Exception::DEVICE_NOT_AVAILABLE)?;
    let mut enabled = step.vcpu.enabled_components()?;
    if supervisor {
        step.require_supervisor(Exception::GENERAL_PROTECTION)?;
        enabled |= step.vcpu.supervisor_components()?;
    }
    let mask = step.registers.rdx << 32 | step.registers.rax & 0xffff_ffff;
    let requested = mask & enabled;
    let linear = step.linear_address(0, HEADER.end)?;
    step.require(linear.is_multiple_of(AREA_ALIGNMENT), Exception::GENERAL_PROTECTION)?;
    Ok(Area { window: Window::new(step.memory, step.paging, linear, access), enabled, requested })
}

/// The vCPU's extended state, which must hold the components in `set`.
pub(super) fn extended_state<'a>(step: &'a mut Step<'_>, set: u64) -> StepResult<ExtendedState<'a>> {
    let state = ExtendedState::new(step.vcpu.load_extended_state()?, &step.processor);
    if state.holds(set) {
        Ok(state)
    } else {
        Err(StepError::Unsupported(format!("the host does not return all of the state components {set:#x}")))
    }
}

/// Whether the instruction has the form with 64-bit x87 pointers.
pub(super) fn has_wide_pointers(step: &Step<'_>) -> bool {
    use Mnemonic::{Fxrstor64, Fxsave64, Xrstor64, Xrstors64, Xsave64, Xsavec64, Xsaveopt64, Xsaves64};
    matches!(
        step.instruction.mnemonic(),
        Xsave64 | Xsaveopt64 | Xsavec64 | Xsaves64 | Xrstor64 | Xrstors64 | Fxsave64 | Fxrstor64
    )
}

/// Cuts x87 pointers to 32 bits and clears their selectors, as CPUs without FCS and FDS do.
pub(super) fn narrow_pointers(control: &mut [u8]) {
    control[12..16].fill(0);
    control[20..24].fill(0);
}

fn save_standard(step: &mut Step<'_>, optimized: bool) -> StepResult {
    let Area { mut window, requested, .. } = area(step, false, Access::Write)?;
    let wide = has_wide_pointers(step);
    let mut state = extended_state(step, requested)?;
    let in_use = state.in_use() & requested;
    let written = if optimized { in_use } else { requested };
    let legacy = LegacyParts::new(&mut state, written, wide);
    let mut header = [0; 8];
    window.read(XSTATE_BV.start, &mut header)?;
    let header = (u64::from_le_bytes(header) & !requested | in_use).to_le_bytes();
    let mut parts = legacy.parts(&state, written, requested & (SSE | AVX) != 0);
    parts.extend(extended(written).map(|number| (state.layout().standard(number).start, state.component(number))));
    parts.push((XSTATE_BV.start, &header));
    store(&mut window, &parts)
}

fn save_compacted(step: &mut Step<'_>, supervisor: bool) -> StepResult {
    let Area { mut window, requested, .. } = area(step, supervisor, Access::Write)?;
    let wide = has_wide_pointers(step);
    let mut state = extended_state(step, requested)?;
    let mut written = state.in_use() & requested;
    if state.mxcsr() != MXCSR_INITIAL {
        written |= requested & SSE;
    }
    let legacy = LegacyParts::new(&mut state, written, wide);
    let (header, format) = (written.to_le_bytes(), (requested | COMPACTED).to_le_bytes());
    let mut parts = legacy.parts(&state, written, written & SSE != 0);
    let offset = |number| state.layout().compacted(number, requested).start;
    parts.extend(extended(written).map(|number| (offset(number), state.component(number))));
    parts.extend([(XSTATE_BV.start, &header[..]), (XCOMP_BV.start, &format[..])]);
    store(&mut window, &parts)
}

/// `FXSAVE`: the legacy region up to its last register.
pub(super) fn fxsave(step: &mut Step<'_>) -> StepResult {
    let mut window = fx_area(step, Access::Write)?;
    let wide = has_wide_pointers(step);
    let mut state = extended_state(step, X87 | SSE)?;
    let legacy = LegacyParts::new(&mut state, X87 | SSE, wide);
    store(&mut window, &legacy.parts(&state, X87 | SSE, true))
}

/// The memory operand of `FXSAVE` and `FXRSTOR`, after their checks.
pub(super) fn fx_area<'a>(step: &mut Step<'a>, access: Access) -> StepResult<Window<'a>> {
    const SIZE: usize = 512;
    const ALIGNMENT: u64 = 16;
    if !step.is_64_bit() {
        return Err(StepError::Unsupported("extended state outside 64-bit mode".into()));
    }
    step.require_x87()?;
    let linear = step.linear_address(0, SIZE)?;
    step.require(linear.is_multiple_of(ALIGNMENT), Exception::GENERAL_PROTECTION)?;
    Ok(Window::new(step.memory, step.paging, linear, access))
}

/// `XGETBV`: XCR0, or the components of it that are in use.
pub(super) fn xgetbv(step: &mut Step<'_>) -> StepResult {
    step.require(step.special.cr4 & CR4_XSAVE != 0, Exception::INVALID_OPCODE)?;
    let enabled = step.vcpu.enabled_components()?;
    let value = match step.registers.rcx & 0xffff_ffff {
        0 => enabled,
        1 => enabled & extended_state(step, 0)?.in_use(),
        _ => return Err(StepError::Fault(Exception::GENERAL_PROTECTION)),
    };
    step.registers.rax = value & 0xffff_ffff;
    step.registers.rdx = value >> 32;
    Ok(())
}

/// The parts of the legacy region that are not copied unchanged.
struct LegacyParts {
    control: [u8; X87_CONTROL.end],
    mxcsr_and_mask: [u8; 8],
}

impl LegacyParts {
    /// Taken from `state`, in which the components in `written` are in use afterwards.
    fn new(state: &mut ExtendedState<'_>, written: u64, wide: bool) -> Self {
        let mxcsr_and_mask = u64::from(state.mxcsr_mask()) << 32 | u64::from(state.mxcsr());
        state.materialize(written);
        let mut control = [0; X87_CONTROL.end];
        control.copy_from_slice(state.legacy(X87_CONTROL));
        if !wide {
            narrow_pointers(&mut control);
        }
        Self { control, mxcsr_and_mask: mxcsr_and_mask.to_le_bytes() }
    }

    /// The contents of the legacy region, each part with its offset.
    fn parts<'a>(&'a self, state: &'a ExtendedState<'_>, written: u64, mxcsr: bool) -> Vec<(usize, &'a [u8])> {
        let mut parts = Vec::with_capacity(16);
        if written & X87 != 0 {
            parts.push((X87_CONTROL.start, &self.control[..]));
            parts.push((X87_REGISTERS.start, state.legacy(X87_REGISTERS)));
        }
        if mxcsr {
            parts.push((MXCSR.start, &self.mxcsr_and_mask));
        }
        if written & SSE != 0 {
            parts.push((XMM_REGISTERS.start, state.legacy(XMM_REGISTERS)));
        }
        parts
    }
}

/// Writes all parts, or none if one of them faults.
fn store(window: &mut Window<'_>, parts: &[(usize, &[u8])]) -> StepResult {
    for (offset, bytes) in parts {
        window.require(*offset..*offset + bytes.len())?;
    }
    parts.iter().try_for_each(|(offset, bytes)| window.write(*offset, bytes))
}
