// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Control instructions of the x87, MMX and vector units (Intel SDM volume 2). They change a few
//! bytes of the vCPU's extended state.

use super::extended_state::ExtendedState;
use super::registers::{CR0_EMULATION, CR0_MONITOR, CR0_TASK_SWITCHED, CR4_FXSR, CR4_XSAVE};
use super::step::{Step, StepError, StepResult};
use super::vcpu_state::Exception;
use super::xsave::extended_state;
use super::xsave_layout::{AVX, SSE, X87, X87_CONTROL, X87_CONTROL_INITIAL, ZMM_HIGH, extended};
use iced_x86::Mnemonic;

/// The six x87 exceptions: flags in the status word, masks in the control word.
const X87_EXCEPTIONS: u16 = 0x3f;
/// Status word: stack fault, summary and busy, which `FNCLEX` clears with the exceptions.
const X87_SUMMARY: u16 = 0x80c0;

// Offsets in `X87_CONTROL`.
const CONTROL_WORD: usize = 0;
const STATUS_WORD: usize = 2;
const TAG_BYTE: usize = 4;

/// Resets control, status, tags and pointers; the registers keep their contents.
pub(super) fn fninit(step: &mut Step<'_>) -> StepResult {
    step.require_x87()?;
    change(step, X87, |state| {
        state.legacy_mut(X87_CONTROL).fill(0);
        set_word(state, CONTROL_WORD, X87_CONTROL_INITIAL);
    })
}

/// Clears the exception flags.
pub(super) fn fnclex(step: &mut Step<'_>) -> StepResult {
    step.require_x87()?;
    change(step, X87, |state| {
        let status = word(state, STATUS_WORD) & !(X87_EXCEPTIONS | X87_SUMMARY);
        set_word(state, STATUS_WORD, status);
    })
}

pub(super) fn fnstsw(step: &mut Step<'_>) -> StepResult {
    store_word(step, STATUS_WORD)
}

pub(super) fn fnstcw(step: &mut Step<'_>) -> StepResult {
    store_word(step, CONTROL_WORD)
}

pub(super) fn fldcw(step: &mut Step<'_>) -> StepResult {
    const WRITABLE: u16 = 0x1f3f;
    const ALWAYS_SET: u16 = 0x40;
    step.require_x87()?;
    require_no_pending_exception(step)?;
    let value = step.read_operand(0)? as u16;
    change(step, X87, |state| set_word(state, CONTROL_WORD, value & WRITABLE | ALWAYS_SET))
}

/// Marks all x87 registers as empty.
pub(super) fn emms(step: &mut Step<'_>) -> StepResult {
    step.require(step.special.cr0 & CR0_EMULATION == 0, Exception::INVALID_OPCODE)?;
    step.require_x87()?;
    require_no_pending_exception(step)?;
    change(step, X87, |state| state.legacy_mut(X87_CONTROL)[TAG_BYTE] = 0)
}

/// Raises a pending x87 exception.
pub(super) fn fwait(step: &mut Step<'_>) -> StepResult {
    let unavailable = CR0_MONITOR | CR0_TASK_SWITCHED;
    step.require(step.special.cr0 & unavailable != unavailable, Exception::DEVICE_NOT_AVAILABLE)?;
    require_no_pending_exception(step)
}

pub(super) fn ldmxcsr(step: &mut Step<'_>) -> StepResult {
    require_vector_unit(step)?;
    let value = step.read_operand(0)? as u32;
    let mask = step.processor.mxcsr_mask;
    step.require(value & !mask == 0, Exception::GENERAL_PROTECTION)?;
    change(step, 0, |state| state.set_mxcsr(value))
}

pub(super) fn stmxcsr(step: &mut Step<'_>) -> StepResult {
    require_vector_unit(step)?;
    let value = extended_state(step, SSE)?.mxcsr();
    step.write_operand(0, u64::from(value))
}

/// Clears the first sixteen vector registers above bit 127.
pub(super) fn vzeroupper(step: &mut Step<'_>) -> StepResult {
    require_vector_unit(step)?;
    let enabled = step.vcpu.enabled_components()?;
    step.require(enabled & (SSE | AVX) == SSE | AVX, Exception::INVALID_OPCODE)?;
    change(step, 0, |state| {
        for number in extended(state.in_use() & (AVX | ZMM_HIGH)) {
            state.component_mut(number).fill(0);
        }
    })
}

fn require_vector_unit(step: &Step<'_>) -> StepResult {
    let vex = matches!(step.instruction.mnemonic(), Mnemonic::Vldmxcsr | Mnemonic::Vstmxcsr | Mnemonic::Vzeroupper);
    let enabled = if vex {
        step.special.cr4 & CR4_XSAVE != 0
    } else {
        step.special.cr4 & CR4_FXSR != 0 && step.special.cr0 & CR0_EMULATION == 0
    };
    step.require(enabled, Exception::INVALID_OPCODE)?;
    step.require(step.special.cr0 & CR0_TASK_SWITCHED == 0, Exception::DEVICE_NOT_AVAILABLE)
}

/// A flagged, unmasked x87 exception is raised by the next waiting instruction.
fn require_no_pending_exception(step: &mut Step<'_>) -> StepResult {
    let mut state = extended_state(step, X87)?;
    state.materialize(X87);
    let pending = word(&state, STATUS_WORD) & !word(&state, CONTROL_WORD) & X87_EXCEPTIONS;
    if pending == 0 { Ok(()) } else { Err(StepError::Fault(Exception::FLOATING_POINT)) }
}

fn store_word(step: &mut Step<'_>, offset: usize) -> StepResult {
    step.require_x87()?;
    let mut state = extended_state(step, X87)?;
    state.materialize(X87);
    let value = word(&state, offset);
    step.write_operand(0, u64::from(value))
}

/// Changes the vCPU's extended state, of which `components` are in use afterwards.
fn change(step: &mut Step<'_>, components: u64, change: impl FnOnce(&mut ExtendedState<'_>)) -> StepResult {
    let mut state = extended_state(step, components)?;
    state.materialize(components);
    change(&mut state);
    Ok(step.vcpu.store_extended_state()?)
}

fn word(state: &ExtendedState<'_>, offset: usize) -> u16 {
    let bytes = &state.legacy(X87_CONTROL)[offset..offset + 2];
    u16::from_le_bytes([bytes[0], bytes[1]])
}

fn set_word(state: &mut ExtendedState<'_>, offset: usize, value: u16) {
    state.legacy_mut(X87_CONTROL)[offset..offset + 2].copy_from_slice(&value.to_le_bytes());
}
