// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `XSAVE`, `XSAVEOPT`, `XSAVEC`, `XSAVES`, `FXSAVE` and `XGETBV` (Intel SDM volume 1, chapter 13; volume 2).
//!
//! | instruction | format | writes |
//! |---|---|---|
//! | `XSAVE` | standard | every requested component, the initial ones too |
//! | `XSAVEOPT` | standard | requested components in use; it may skip unmodified ones, and does not here |
//! | `XSAVEC`, `XSAVES` | compacted | requested components in use |
//!
//! Not supported: supervisor components (IA32_XSS is zero on every host of this kind seen), other than 64-bit mode.

use super::image::Image;
use super::layout::{
    AREA_ALIGNMENT, AVX, COMPACTED, HEADER, MXCSR, MXCSR_INITIAL, SSE, X87, X87_CONTROL, X87_REGISTERS, XCOMP_BV,
    XMM_REGISTERS, XSTATE_BV, extended,
};
use super::registers::{CR0_TASK_SWITCHED, CR4_XSAVE};
use super::state::Exception;
use super::step::{Done, Step, Stop};
use super::walk::Access;
use super::window::Window;
use iced_x86::Mnemonic;

/// Every requested component in standard format.
pub(super) fn xsave(step: &mut Step<'_>) -> Done {
    standard(step, false)
}

/// The requested components in use, in standard format.
pub(super) fn xsaveopt(step: &mut Step<'_>) -> Done {
    standard(step, true)
}

/// The requested components in use, in compacted format.
pub(super) fn xsavec(step: &mut Step<'_>) -> Done {
    compacted(step, false)
}

/// The same with supervisor components.
pub(super) fn xsaves(step: &mut Step<'_>) -> Done {
    compacted(step, true)
}

/// What the instructions of this family have in common.
pub(super) struct Area<'a> {
    /// The memory operand.
    pub(super) window: Window<'a>,
    /// Components that may be in an area at all: XCR0, with IA32_XSS for the supervisor's forms.
    pub(super) enabled: u64,
    /// Components that this execution is about: those of EDX:EAX that are enabled.
    pub(super) requested: u64,
}

/// The checks that precede every access to an XSAVE area.
pub(super) fn area<'a>(step: &mut Step<'a>, supervisor: bool, access: Access) -> Done<Area<'a>> {
    if !step.is_64_bit() {
        return Err(Stop::Unable("extended state outside 64-bit mode".into()));
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
pub(super) fn image<'a>(step: &'a mut Step<'_>, set: u64) -> Done<Image<'a>> {
    let image = Image::new(step.vcpu.load_extended_state()?, &step.processor.xstate);
    if image.holds(set) {
        Ok(image)
    } else {
        Err(Stop::Unable(format!("the host does not give all of the state components {set:#x}")))
    }
}

/// Whether the instruction is of the form with 64-bit x87 pointers.
pub(super) fn has_wide_pointers(step: &Step<'_>) -> bool {
    use Mnemonic::{Fxrstor64, Fxsave64, Xrstor64, Xrstors64, Xsave64, Xsavec64, Xsaveopt64, Xsaves64};
    matches!(
        step.instruction.mnemonic(),
        Xsave64 | Xsaveopt64 | Xsavec64 | Xsaves64 | Xrstor64 | Xrstors64 | Fxsave64 | Fxrstor64
    )
}

/// x87 pointers cut to 32 bits; the selectors beside them are zero, as CPUs without FCS and FDS have them.
pub(super) fn narrow_pointers(control: &mut [u8]) {
    control[12..16].fill(0);
    control[20..24].fill(0);
}

fn standard(step: &mut Step<'_>, optimized: bool) -> Done {
    let Area { mut window, requested, .. } = area(step, false, Access::Write)?;
    let wide = has_wide_pointers(step);
    let mut image = image(step, requested)?;
    let in_use = image.in_use() & requested;
    let written = if optimized { in_use } else { requested };
    let fixed = Fixed::new(&mut image, written, wide);
    let mut header = [0; 8];
    window.read(XSTATE_BV.start, &mut header)?;
    let header = (u64::from_le_bytes(header) & !requested | in_use).to_le_bytes();
    let mut pieces = fixed.pieces(&image, written, requested & (SSE | AVX) != 0);
    pieces.extend(extended(written).map(|number| (image.layout().standard(number).start, image.component(number))));
    pieces.push((XSTATE_BV.start, &header));
    store(&mut window, &pieces)
}

fn compacted(step: &mut Step<'_>, supervisor: bool) -> Done {
    let Area { mut window, requested, .. } = area(step, supervisor, Access::Write)?;
    let wide = has_wide_pointers(step);
    let mut image = image(step, requested)?;
    let mut written = image.in_use() & requested;
    if image.mxcsr() != MXCSR_INITIAL {
        written |= requested & SSE;
    }
    let fixed = Fixed::new(&mut image, written, wide);
    let (state, format) = (written.to_le_bytes(), (requested | COMPACTED).to_le_bytes());
    let mut pieces = fixed.pieces(&image, written, written & SSE != 0);
    let place = |number| image.layout().compacted(number, requested).start;
    pieces.extend(extended(written).map(|number| (place(number), image.component(number))));
    pieces.extend([(XSTATE_BV.start, &state[..]), (XCOMP_BV.start, &format[..])]);
    store(&mut window, &pieces)
}

/// `FXSAVE`: the legacy region up to its last register.
pub(super) fn fxsave(step: &mut Step<'_>) -> Done {
    let mut window = fx_area(step, Access::Write)?;
    let wide = has_wide_pointers(step);
    let mut image = image(step, X87 | SSE)?;
    let fixed = Fixed::new(&mut image, X87 | SSE, wide);
    store(&mut window, &fixed.pieces(&image, X87 | SSE, true))
}

/// The memory operand of `FXSAVE` and `FXRSTOR`, after their checks.
pub(super) fn fx_area<'a>(step: &mut Step<'a>, access: Access) -> Done<Window<'a>> {
    const SIZE: usize = 512;
    const ALIGNMENT: u64 = 16;
    if !step.is_64_bit() {
        return Err(Stop::Unable("extended state outside 64-bit mode".into()));
    }
    step.require_x87()?;
    let linear = step.linear_address(0, SIZE)?;
    step.require(linear.is_multiple_of(ALIGNMENT), Exception::GENERAL_PROTECTION)?;
    Ok(Window::new(step.memory, step.paging, linear, access))
}

/// `XGETBV`: XCR0, or the components of it that are in use.
pub(super) fn xgetbv(step: &mut Step<'_>) -> Done {
    step.require(step.special.cr4 & CR4_XSAVE != 0, Exception::INVALID_OPCODE)?;
    let enabled = step.vcpu.enabled_components()?;
    let value = match step.registers.rcx & 0xffff_ffff {
        0 => enabled,
        1 => enabled & image(step, 0)?.in_use(),
        _ => return Err(Stop::Fault(Exception::GENERAL_PROTECTION)),
    };
    step.registers.rax = value & 0xffff_ffff;
    step.registers.rdx = value >> 32;
    Ok(())
}

/// The parts of the legacy region that are not copied as they are.
struct Fixed {
    control: [u8; X87_CONTROL.end],
    mxcsr: [u8; 8],
}

impl Fixed {
    /// Taken from `image`, which afterwards spells out the components in `written`.
    fn new(image: &mut Image<'_>, written: u64, wide: bool) -> Self {
        let pair = u64::from(image.mxcsr_mask()) << 32 | u64::from(image.mxcsr());
        image.materialize(written);
        let mut control = [0; X87_CONTROL.end];
        control.copy_from_slice(image.legacy(X87_CONTROL));
        if !wide {
            narrow_pointers(&mut control);
        }
        Self { control, mxcsr: pair.to_le_bytes() }
    }

    /// What goes into the legacy region, each piece with its place.
    fn pieces<'a>(&'a self, image: &'a Image<'_>, written: u64, mxcsr: bool) -> Vec<(usize, &'a [u8])> {
        let mut pieces = Vec::with_capacity(16);
        if written & X87 != 0 {
            pieces.push((X87_CONTROL.start, &self.control[..]));
            pieces.push((X87_REGISTERS.start, image.legacy(X87_REGISTERS)));
        }
        if mxcsr {
            pieces.push((MXCSR.start, &self.mxcsr));
        }
        if written & SSE != 0 {
            pieces.push((XMM_REGISTERS.start, image.legacy(XMM_REGISTERS)));
        }
        pieces
    }
}

/// Writes all pieces, or none where one of them faults.
fn store(window: &mut Window<'_>, pieces: &[(usize, &[u8])]) -> Done {
    for (offset, bytes) in pieces {
        window.require(*offset..*offset + bytes.len())?;
    }
    pieces.iter().try_for_each(|(offset, bytes)| window.write(*offset, bytes))
}
