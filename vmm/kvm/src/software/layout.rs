// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where the components of an XSAVE area are (Intel SDM volume 1, chapter 13): the legacy region and the header are
//! fixed, the rest comes from CPUID leaf 0xD. Plain data; read once for the host's CPU.

use std::ops::Range;

/// State component 0: x87.
pub(super) const X87: u64 = 1 << 0;
/// State component 1: XMM registers, and MXCSR with them.
pub(super) const SSE: u64 = 1 << 1;
/// State component 2: upper halves of the YMM registers.
pub(super) const AVX: u64 = 1 << 2;
/// State component 9, by number: rights by protection key.
pub(super) const PKRU_NUMBER: usize = 9;
/// State component 6: upper halves of the first sixteen ZMM registers.
pub(super) const ZMM_HIGH: u64 = 1 << 6;

/// Legacy region and header together: where the first extended component of a compacted area starts.
pub(super) const FIXED_SIZE: usize = 576;
/// The alignment that an area must have.
pub(super) const AREA_ALIGNMENT: u64 = 64;
/// An area is never larger than this; a CPU that says otherwise has its component left out.
pub(super) const MAXIMUM_SIZE: usize = 16 << 10;

/// In the legacy region: control, status and tag word, opcode, instruction and data pointer.
pub(super) const X87_CONTROL: Range<usize> = 0..24;
/// In the legacy region.
pub(super) const MXCSR: Range<usize> = 24..28;
/// In the legacy region: the bits of MXCSR that may be set.
pub(super) const MXCSR_MASK: Range<usize> = 28..32;
/// In the legacy region: ST0 to ST7.
pub(super) const X87_REGISTERS: Range<usize> = 32..160;
/// In the legacy region: XMM0 to XMM15.
pub(super) const XMM_REGISTERS: Range<usize> = 160..416;
/// The header.
pub(super) const HEADER: Range<usize> = 512..FIXED_SIZE;
/// In the header: which components are not in their initial configuration.
pub(super) const XSTATE_BV: Range<usize> = 512..520;
/// In the header: the format, and which components a compacted area has room for.
pub(super) const XCOMP_BV: Range<usize> = 520..528;
/// In [`XCOMP_BV`]: the area is compacted.
pub(super) const COMPACTED: u64 = 1 << 63;

/// MXCSR's initial value.
pub(super) const MXCSR_INITIAL: u32 = 0x1f80;
/// The x87 control word's initial value.
pub(super) const X87_CONTROL_INITIAL: u16 = 0x37f;

/// One extended component.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Component {
    /// Its place in the standard format, bytes; 0 for a supervisor component, which that format does not hold.
    pub(super) standard_offset: usize,
    /// Bytes; 0 if the CPU does not have it.
    pub(super) size: usize,
    /// In the compacted format it starts at a multiple of 64.
    pub(super) aligned: bool,
}

/// Sizes and places of all components that a CPU has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct XstateLayout {
    components: [Component; 63],
}

impl XstateLayout {
    /// The layout that CPUID leaf 0xD describes; `subleaf` answers EAX, EBX and ECX of one.
    pub(super) fn new(subleaf: impl Fn(u32) -> (u32, u32, u32)) -> Self {
        let mut components = [Component::default(); 63];
        for (number, component) in components.iter_mut().enumerate().skip(2) {
            let (size, offset, flags) = subleaf(number as u32);
            let (size, offset) = (size as usize, offset as usize);
            let supervisor = flags & 1 != 0;
            let fits = size <= MAXIMUM_SIZE && offset <= MAXIMUM_SIZE - size && (supervisor || offset >= FIXED_SIZE);
            if size != 0 && fits {
                let standard_offset = if supervisor { 0 } else { offset };
                *component = Component { standard_offset, size, aligned: flags & 2 != 0 };
            }
        }
        Self { components }
    }

    /// Bytes that an area in standard format takes when every component of this CPU is in it.
    pub(super) fn standard_size(&self) -> usize {
        self.components.iter().map(|c| c.standard_offset + c.size).fold(FIXED_SIZE, usize::max)
    }

    /// Whether this CPU has every user component in `set`, so that the area in standard format holds them.
    pub(super) fn holds(&self, set: u64) -> bool {
        set & COMPACTED == 0 && extended(set).all(|number| self.components[number].standard_offset != 0)
    }

    /// Where the extended component `number` is in the standard format.
    pub(super) fn standard(&self, number: usize) -> Range<usize> {
        let component = self.components[number];
        component.standard_offset..component.standard_offset + component.size
    }

    /// Where the extended component `number` is in an area that is compacted to the components in `set`.
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
