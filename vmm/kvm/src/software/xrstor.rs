// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `XRSTOR`, `XRSTORS` and `FXRSTOR` (Intel SDM volume 1, chapter 13; volume 2). An area is guest memory: each part is
//! copied once, then checked, and the vCPU's state is replaced only after all of it was accepted.
//!
//! Not supported: supervisor components, other than 64-bit mode.

use super::image::Image;
use super::layout::{
    AVX, COMPACTED, HEADER, MXCSR, MXCSR_INITIAL, SSE, X87, X87_CONTROL, X87_REGISTERS, XMM_REGISTERS, extended,
};
use super::state::Exception;
use super::step::{Done, Step, Stop};
use super::walk::Access;
use super::window::Window;
use super::xsave::{Area, area, fx_area, has_wide_pointers, image, narrow_pointers};

/// From either format.
pub(super) fn xrstor(step: &mut Step<'_>) -> Done {
    restore(step, false)
}

/// From the compacted format, with supervisor components.
pub(super) fn xrstors(step: &mut Step<'_>) -> Done {
    restore(step, true)
}

/// The header of an area, copied and understood.
struct Header {
    /// Components that the area holds; the others become initial.
    state: u64,
    /// Components that a compacted area has room for; `None` in standard format.
    compacted: Option<u64>,
}

impl Header {
    /// Refuses what the CPU refuses with #GP.
    fn read(window: &mut Window<'_>, enabled: u64, supervisor: bool) -> Done<Self> {
        let mut bytes = [0; HEADER.end - HEADER.start];
        window.read(HEADER.start, &mut bytes)?;
        let mut words = [0; 8];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        let [state, format, reserved, ..] = words;
        let (header, accepted) = if format & COMPACTED == 0 {
            let accepted = !supervisor && state & !enabled == 0 && format == 0 && reserved == 0;
            (Self { state, compacted: None }, accepted)
        } else {
            let room = format & !COMPACTED;
            let clean = words[2..].iter().all(|word| *word == 0);
            (Self { state, compacted: Some(room) }, room & !enabled == 0 && state & !room == 0 && clean)
        };
        if accepted { Ok(header) } else { Err(Stop::Fault(Exception::GENERAL_PROTECTION)) }
    }
}

fn restore(step: &mut Step<'_>, supervisor: bool) -> Done {
    let Area { mut window, enabled, requested } = area(step, supervisor, Access::Read)?;
    let wide = has_wide_pointers(step);
    let header = Header::read(&mut window, enabled, supervisor)?;
    let mut image = image(step, requested)?;
    let restored = requested & header.state;
    read_legacy(&mut window, &mut image, restored, wide)?;
    for number in extended(restored) {
        let place = match header.compacted {
            Some(room) => image.layout().compacted(number, room),
            None => image.layout().standard(number),
        };
        window.read(place.start, image.component_mut(number))?;
    }
    let mxcsr = match header.compacted {
        None if requested & (SSE | AVX) != 0 => read_mxcsr(&mut window, &image)?,
        Some(_) if restored & SSE != 0 => read_mxcsr(&mut window, &image)?,
        Some(_) if requested & SSE != 0 => MXCSR_INITIAL,
        _ => image.mxcsr(),
    };
    image.set_in_use(image.in_use() & !requested | restored);
    image.set_mxcsr(mxcsr);
    Ok(step.vcpu.store_extended_state()?)
}

/// `FXRSTOR`: everything in the legacy region.
pub(super) fn fxrstor(step: &mut Step<'_>) -> Done {
    let mut window = fx_area(step, Access::Read)?;
    let wide = has_wide_pointers(step);
    let mut image = image(step, X87 | SSE)?;
    let mxcsr = read_mxcsr(&mut window, &image)?;
    read_legacy(&mut window, &mut image, X87 | SSE, wide)?;
    image.set_in_use(image.in_use() | X87 | SSE);
    image.set_mxcsr(mxcsr);
    Ok(step.vcpu.store_extended_state()?)
}

fn read_legacy(window: &mut Window<'_>, image: &mut Image<'_>, restored: u64, wide: bool) -> Done {
    if restored & X87 != 0 {
        window.read(X87_CONTROL.start, image.legacy_mut(X87_CONTROL))?;
        window.read(X87_REGISTERS.start, image.legacy_mut(X87_REGISTERS))?;
        if !wide {
            narrow_pointers(image.legacy_mut(X87_CONTROL));
        }
    }
    if restored & SSE != 0 {
        window.read(XMM_REGISTERS.start, image.legacy_mut(XMM_REGISTERS))?;
    }
    Ok(())
}

/// MXCSR from an area: #GP for bits that the CPU does not have.
fn read_mxcsr(window: &mut Window<'_>, image: &Image<'_>) -> Done<u32> {
    let mut bytes = [0; 4];
    window.read(MXCSR.start, &mut bytes)?;
    let value = u32::from_le_bytes(bytes);
    if value & !image.mxcsr_mask() == 0 { Ok(value) } else { Err(Stop::Fault(Exception::GENERAL_PROTECTION)) }
}
