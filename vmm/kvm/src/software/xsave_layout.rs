// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where the components of an XSAVE area are (Intel SDM volume 1, chapter 13; AMD64 APM volume 2,
//! 11.5). The legacy region and the header are fixed; the rest differs between CPUs and comes from
//! CPUID leaf 0xD. Plain data.

use std::ops::Range;

/// State component 0.
pub(super) const X87: u64 = 1 << 0;
/// State component 1: XMM registers, and MXCSR with them.
pub(super) const SSE: u64 = 1 << 1;
/// State component 2: upper halves of the YMM registers.
pub(super) const AVX: u64 = 1 << 2;
/// State component 6: upper halves of the first sixteen ZMM registers.
pub(super) const ZMM_HIGH: u64 = 1 << 6;
/// Number of the state component that holds the rights by protection key. Not every CPU has it.
pub(super) const PKRU_NUMBER: usize = 9;

/// Size of the legacy region and the header. The extended components of a compacted area follow.
pub(super) const FIXED_SIZE: usize = 576;
pub(super) const AREA_ALIGNMENT: u64 = 64;
/// Bound of an area's size; components beyond it are ignored. AMX ends at 11,008.
pub(super) const MAX_AREA_SIZE: usize = 16 << 10;

// In the legacy region.
/// Control, status and tag word, opcode, instruction and data pointer.
pub(super) const X87_CONTROL: Range<usize> = 0..24;
pub(super) const MXCSR: Range<usize> = 24..28;
pub(super) const MXCSR_MASK: Range<usize> = 28..32;
pub(super) const X87_REGISTERS: Range<usize> = 32..160;
pub(super) const XMM_REGISTERS: Range<usize> = 160..416;

pub(super) const HEADER: Range<usize> = 512..FIXED_SIZE;
/// In the header: the components that are not in their initial configuration.
pub(super) const XSTATE_BV: Range<usize> = 512..520;
/// In the header: the format, and the components that a compacted area has room for.
pub(super) const XCOMP_BV: Range<usize> = 520..528;
/// Bit of [`XCOMP_BV`].
pub(super) const COMPACTED: u64 = 1 << 63;

pub(super) const MXCSR_INITIAL: u32 = 0x1f80;
pub(super) const X87_CONTROL_INITIAL: u16 = 0x37f;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Component {
    /// Offset in the standard format; 0 for a supervisor component, which that format does not
    /// hold.
    pub(super) standard_offset: usize,
    /// 0 if the CPU does not have it.
    pub(super) size: usize,
    /// In the compacted format its offset is a multiple of 64.
    pub(super) aligned: bool,
}

/// Sizes and offsets of the components that a CPU has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct XstateLayout {
    components: [Component; 63],
}

impl XstateLayout {
    /// The layout that CPUID leaf 0xD describes; `subleaf` returns EAX, EBX and ECX.
    pub(super) fn new(subleaf: impl Fn(u32) -> (u32, u32, u32)) -> Self {
        let mut components = [Component::default(); 63];
        for (number, component) in components.iter_mut().enumerate().skip(2) {
            let (size, offset, flags) = subleaf(number as u32);
            let (size, offset) = (size as usize, offset as usize);
            let supervisor = flags & 1 != 0;
            let fits = size <= MAX_AREA_SIZE && offset <= MAX_AREA_SIZE - size && (supervisor || offset >= FIXED_SIZE);
            if size != 0 && fits {
                let standard_offset = if supervisor { 0 } else { offset };
                *component = Component { standard_offset, size, aligned: flags & 2 != 0 };
            }
        }
        Self { components }
    }

    /// Size of an area in standard format that holds every component.
    pub(super) fn standard_size(&self) -> usize {
        self.components.iter().map(|c| c.standard_offset + c.size).fold(FIXED_SIZE, usize::max)
    }

    /// The components that the standard format holds, as in XCR0.
    pub(super) fn user_components(&self) -> u64 {
        let held = (2..63).filter(|number| self.components[*number].standard_offset != 0);
        held.fold(X87 | SSE, |set, number| set | 1 << number)
    }

    /// Whether the standard format holds every component in `set`.
    pub(super) fn holds(&self, set: u64) -> bool {
        set & !self.user_components() == 0
    }

    /// Where the extended component `number` is in the standard format.
    pub(super) fn standard(&self, number: usize) -> Range<usize> {
        let component = self.components[number];
        component.standard_offset..component.standard_offset + component.size
    }

    /// Where the extended component `number` is in an area that is compacted to the components in
    /// `set`.
    pub(super) fn compacted(&self, number: usize, set: u64) -> Range<usize> {
        let mut start = FIXED_SIZE;
        for before in extended(set) {
            let component = self.components[before];
            if component.aligned {
                start = start.next_multiple_of(AREA_ALIGNMENT as usize);
            }
            if before == number {
                break;
            }
            start += component.size;
        }
        start..start + self.components[number].size
    }
}

/// The numbers of the extended components (2 to 62) in `set`, in order.
pub(super) fn extended(set: u64) -> impl Iterator<Item = usize> {
    (2..63).filter(move |number| set & (1 << number) != 0)
}
