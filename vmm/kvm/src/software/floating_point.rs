// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Control instructions of the x87, MMX and vector units (Intel SDM volume 2). They change a few bytes of the vCPU's
//! extended state.

use super::image::Image;
use super::layout::{AVX, SSE, X87, X87_CONTROL, X87_CONTROL_INITIAL, ZMM_HIGH, extended};
use super::registers::{CR0_EMULATION, CR0_MONITOR, CR0_TASK_SWITCHED, CR4_FXSR, CR4_XSAVE};
use super::state::Exception;
use super::step::{Done, Step, Stop};
use super::xsave::image;
use iced_x86::Mnemonic;

/// The six x87 exceptions: flags in the status word, masks in the control word.
const X87_EXCEPTIONS: u16 = 0x3f;
/// Status word: stack fault, summary and busy, which `FNCLEX` clears with the exceptions.
const X87_SUMMARY: u16 = 0x80c0;

/// Where things are in [`X87_CONTROL`].
const CONTROL_WORD: usize = 0;
const STATUS_WORD: usize = 2;
const TAG_BYTE: usize = 4;

/// Control, status, tags and pointers as after a reset; the registers stay.
pub(super) fn fninit(step: &mut Step<'_>) -> Done {
    step.require_x87()?;
    change(step, X87, |image| {
        image.legacy_mut(X87_CONTROL).fill(0);
        set_word(image, CONTROL_WORD, X87_CONTROL_INITIAL);
    })
}

/// Clears the exception flags.
pub(super) fn fnclex(step: &mut Step<'_>) -> Done {
    step.require_x87()?;
    change(step, X87, |image| {
        let status = word(image, STATUS_WORD) & !(X87_EXCEPTIONS | X87_SUMMARY);
        set_word(image, STATUS_WORD, status);
    })
}

/// Stores the status word.
pub(super) fn fnstsw(step: &mut Step<'_>) -> Done {
    store_word(step, STATUS_WORD)
}

/// Stores the control word.
pub(super) fn fnstcw(step: &mut Step<'_>) -> Done {
    store_word(step, CONTROL_WORD)
}

/// Loads the control word.
pub(super) fn fldcw(step: &mut Step<'_>) -> Done {
    /// The bits that the CPU keeps, and the one that always reads as set.
    const WRITABLE: u16 = 0x1f3f;
    const ALWAYS: u16 = 0x40;
    step.require_x87()?;
    require_no_pending_exception(step)?;
    let value = step.read_operand(0)? as u16;
    change(step, X87, |image| set_word(image, CONTROL_WORD, value & WRITABLE | ALWAYS))
}

/// Marks all x87 registers empty.
pub(super) fn emms(step: &mut Step<'_>) -> Done {
    step.require(step.special.cr0 & CR0_EMULATION == 0, Exception::INVALID_OPCODE)?;
    step.require_x87()?;
    require_no_pending_exception(step)?;
    change(step, X87, |image| image.legacy_mut(X87_CONTROL)[TAG_BYTE] = 0)
}

/// Raises the x87 exception that is pending, if one is.
pub(super) fn fwait(step: &mut Step<'_>) -> Done {
    let unavailable = CR0_MONITOR | CR0_TASK_SWITCHED;
    step.require(step.special.cr0 & unavailable != unavailable, Exception::DEVICE_NOT_AVAILABLE)?;
    require_no_pending_exception(step)
}

/// Loads MXCSR.
pub(super) fn ldmxcsr(step: &mut Step<'_>) -> Done {
    require_vector_unit(step)?;
    let value = step.read_operand(0)? as u32;
    let mask = image(step, SSE)?.mxcsr_mask();
    step.require(value & !mask == 0, Exception::GENERAL_PROTECTION)?;
    change(step, 0, |image| image.set_mxcsr(value))
}

/// Stores MXCSR.
pub(super) fn stmxcsr(step: &mut Step<'_>) -> Done {
    require_vector_unit(step)?;
    let value = image(step, SSE)?.mxcsr();
    step.write_operand(0, u64::from(value))
}

/// Clears the first sixteen vector registers above bit 127.
pub(super) fn vzeroupper(step: &mut Step<'_>) -> Done {
    require_vector_unit(step)?;
    let enabled = step.vcpu.enabled_components()?;
    step.require(enabled & (SSE | AVX) == SSE | AVX, Exception::INVALID_OPCODE)?;
    change(step, 0, |image| {
        for number in extended(image.in_use() & (AVX | ZMM_HIGH)) {
            image.component_mut(number).fill(0);
        }
    })
}

fn require_vector_unit(step: &Step<'_>) -> Done {
    let vex = matches!(step.instruction.mnemonic(), Mnemonic::Vldmxcsr | Mnemonic::Vstmxcsr | Mnemonic::Vzeroupper);
    let enabled = if vex {
        step.special.cr4 & CR4_XSAVE != 0
    } else {
        step.special.cr4 & CR4_FXSR != 0 && step.special.cr0 & CR0_EMULATION == 0
    };
    step.require(enabled, Exception::INVALID_OPCODE)?;
    step.require(step.special.cr0 & CR0_TASK_SWITCHED == 0, Exception::DEVICE_NOT_AVAILABLE)
}

/// An x87 exception that is flagged and not masked surfaces at the next waiting instruction.
fn require_no_pending_exception(step: &mut Step<'_>) -> Done {
    let mut image = image(step, X87)?;
    image.materialize(X87);
    let pending = word(&image, STATUS_WORD) & !word(&image, CONTROL_WORD) & X87_EXCEPTIONS;
    if pending == 0 { Ok(()) } else { Err(Stop::Fault(Exception::FLOATING_POINT)) }
}

fn store_word(step: &mut Step<'_>, place: usize) -> Done {
    step.require_x87()?;
    let mut image = image(step, X87)?;
    image.materialize(X87);
    let value = word(&image, place);
    step.write_operand(0, u64::from(value))
}

/// Changes the vCPU's extended state; `components` are in use afterwards.
fn change(step: &mut Step<'_>, components: u64, change: impl FnOnce(&mut Image<'_>)) -> Done {
    let mut image = image(step, components)?;
    image.materialize(components);
    change(&mut image);
    Ok(step.vcpu.store_extended_state()?)
}

fn word(image: &Image<'_>, place: usize) -> u16 {
    let bytes = &image.legacy(X87_CONTROL)[place..place + 2];
    u16::from_le_bytes([bytes[0], bytes[1]])
}

fn set_word(image: &mut Image<'_>, place: usize, value: u16) {
    image.legacy_mut(X87_CONTROL)[place..place + 2].copy_from_slice(&value.to_le_bytes());
}
