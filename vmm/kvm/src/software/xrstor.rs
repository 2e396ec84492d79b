// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `XRSTOR`, `XRSTORS` and `FXRSTOR` (Intel SDM volume 1, chapter 13; volume 2). An area is guest
//! memory: each part is copied once, then checked, and the vCPU's state is replaced only after all
//! of it was accepted.
//!
//! Not supported: as in `xsave.rs`.

use super::extended_state::ExtendedState;
use super::step::{Step, StepError, StepResult};
use super::vcpu_state::Exception;
use super::walk::Access;
use super::window::Window;
use super::xsave::{Area, area, extended_state, fx_area, has_wide_pointers, narrow_pointers};
use super::xsave_layout::{
    AVX, COMPACTED, HEADER, MXCSR, MXCSR_INITIAL, SSE, X87, X87_CONTROL, X87_REGISTERS, XMM_REGISTERS, extended,
};

pub(super) fn xrstor(step: &mut Step<'_>) -> StepResult {
    restore(step, false)
}

/// Takes the compacted format only.
pub(super) fn xrstors(step: &mut Step<'_>) -> StepResult {
    restore(step, true)
}

/// The header of an area, copied and checked.
struct Header {
    /// Components that the area holds; the others become initial.
    state: u64,
    /// Components that a compacted area has room for; `None` in standard format.
    compacted: Option<u64>,
}

impl Header {
    /// Stops with #GP where the CPU does.
    fn read(window: &mut Window<'_>, enabled: u64, supervisor: bool) -> StepResult<Self> {
        let mut bytes = [0; HEADER.end - HEADER.start];
        window.read(HEADER.start, &mut bytes)?;
        let mut words = [0; 8];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        let [state, format, reserved, ..] = words;
        let (header, valid) = if format & COMPACTED == 0 {
            let valid = !supervisor && state & !enabled == 0 && format == 0 && reserved == 0;
            (Self { state, compacted: None }, valid)
        } else {
            let room = format & !COMPACTED;
            let reserved_is_zero = words[2..].iter().all(|word| *word == 0);
            (Self { state, compacted: Some(room) }, room & !enabled == 0 && state & !room == 0 && reserved_is_zero)
        };
        if valid { Ok(header) } else { Err(StepError::Fault(Exception::GENERAL_PROTECTION)) }
    }
}

fn restore(step: &mut Step<'_>, supervisor: bool) -> StepResult {
    let Area { mut window, enabled, requested } = area(step, supervisor, Access::Read)?;
    let wide = has_wide_pointers(step);
    let header = Header::read(&mut window, enabled, supervisor)?;
    let mut state = extended_state(step, requested)?;
    let restored = requested & header.state;
    read_legacy(&mut window, &mut state, restored, wide)?;
    for number in extended(restored) {
        let range = match header.compacted {
            Some(room) => state.layout().compacted(number, room),
            None => state.layout().standard(number),
        };
        window.read(range.start, state.component_mut(number))?;
    }
    let mxcsr = match header.compacted {
        None if requested & (SSE | AVX) != 0 => read_mxcsr(&mut window, &state)?,
        Some(_) if restored & SSE != 0 => read_mxcsr(&mut window, &state)?,
        Some(_) if requested & SSE != 0 => MXCSR_INITIAL,
        _ => state.mxcsr(),
    };
    state.set_in_use(state.in_use() & !requested | restored);
    state.set_mxcsr(mxcsr);
    Ok(step.vcpu.store_extended_state()?)
}

/// `FXRSTOR`: everything in the legacy region.
pub(super) fn fxrstor(step: &mut Step<'_>) -> StepResult {
    let mut window = fx_area(step, Access::Read)?;
    let wide = has_wide_pointers(step);
    let mut state = extended_state(step, X87 | SSE)?;
    let mxcsr = read_mxcsr(&mut window, &state)?;
    read_legacy(&mut window, &mut state, X87 | SSE, wide)?;
    state.set_in_use(state.in_use() | X87 | SSE);
    state.set_mxcsr(mxcsr);
    Ok(step.vcpu.store_extended_state()?)
}

fn read_legacy(window: &mut Window<'_>, state: &mut ExtendedState<'_>, restored: u64, wide: bool) -> StepResult {
    if restored & X87 != 0 {
        window.read(X87_CONTROL.start, state.legacy_mut(X87_CONTROL))?;
        window.read(X87_REGISTERS.start, state.legacy_mut(X87_REGISTERS))?;
        if !wide {
            narrow_pointers(state.legacy_mut(X87_CONTROL));
        }
    }
    if restored & SSE != 0 {
        window.read(XMM_REGISTERS.start, state.legacy_mut(XMM_REGISTERS))?;
    }
    Ok(())
}

/// Reads MXCSR from an area: #GP for bits that the CPU does not have.
fn read_mxcsr(window: &mut Window<'_>, state: &ExtendedState<'_>) -> StepResult<u32> {
    let mut bytes = [0; 4];
    window.read(MXCSR.start, &mut bytes)?;
    let value = u32::from_le_bytes(bytes);
    if value & !state.mxcsr_mask() == 0 { Ok(value) } else { Err(StepError::Fault(Exception::GENERAL_PROTECTION)) }
}
