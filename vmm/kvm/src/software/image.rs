// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A vCPU's extended state as the host hands it over: an XSAVE area in standard format, whose header says which
//! components are in use. Components that are not in use count as initial, whatever their bytes are.

use std::ops::Range;

use super::layout::{
    AVX, HEADER, MXCSR, MXCSR_INITIAL, MXCSR_MASK, PKRU_NUMBER, SSE, X87, X87_CONTROL, X87_CONTROL_INITIAL,
    X87_REGISTERS, XMM_REGISTERS, XSTATE_BV, XstateLayout, extended,
};

/// What MXCSR_MASK means when it is zero.
const MXCSR_MASK_DEFAULT: u32 = 0xffbf;

/// The state, to be read and changed.
pub(super) struct Image<'a> {
    bytes: &'a mut [u8],
    layout: &'a XstateLayout,
}

impl<'a> Image<'a> {
    /// A view of `bytes`, which the host laid out as `layout` says.
    pub(super) fn new(bytes: &'a mut [u8], layout: &'a XstateLayout) -> Self {
        assert!(bytes.len() >= HEADER.end, "the host's extended state has a header");
        Self { bytes, layout }
    }

    /// How the image is laid out.
    pub(super) fn layout(&self) -> &'a XstateLayout {
        self.layout
    }

    /// Whether every component in `set` is in the image.
    pub(super) fn holds(&self, set: u64) -> bool {
        self.layout.holds(set) && extended(set).all(|number| self.layout.standard(number).end <= self.bytes.len())
    }

    /// The components in use.
    pub(super) fn in_use(&self) -> u64 {
        u64::from_le_bytes(self.array(XSTATE_BV))
    }

    /// Declares which components are in use, and the rest of the header as the standard format wants it.
    pub(super) fn set_in_use(&mut self, set: u64) {
        self.bytes[HEADER].fill(0);
        self.bytes[XSTATE_BV].copy_from_slice(&set.to_le_bytes());
    }

    /// MXCSR. The host keeps it whenever XMM or YMM registers are in use.
    pub(super) fn mxcsr(&self) -> u32 {
        if self.in_use() & (SSE | AVX) == 0 { MXCSR_INITIAL } else { u32::from_le_bytes(self.array(MXCSR)) }
    }

    /// Sets MXCSR. A value that is not the initial one keeps the XMM registers in use, or the host would drop it.
    pub(super) fn set_mxcsr(&mut self, value: u32) {
        if value != MXCSR_INITIAL {
            self.materialize(SSE);
        }
        self.bytes[MXCSR].copy_from_slice(&value.to_le_bytes());
    }

    /// The bits of MXCSR that may be set.
    pub(super) fn mxcsr_mask(&self) -> u32 {
        match u32::from_le_bytes(self.array(MXCSR_MASK)) {
            0 => MXCSR_MASK_DEFAULT,
            mask => mask,
        }
    }

    /// PKRU; zero where the CPU has none.
    pub(super) fn pkru(&self) -> u32 {
        let range = self.layout.standard(PKRU_NUMBER);
        let in_use = self.in_use() & 1 << PKRU_NUMBER != 0 && range.len() >= 4 && range.end <= self.bytes.len();
        if in_use { u32::from_le_bytes(self.array(range.start..range.start + 4)) } else { 0 }
    }

    /// Makes the bytes of the components in `set` say what the CPU holds, also of those that are not in use.
    pub(super) fn materialize(&mut self, set: u64) {
        let unused = set & !self.in_use();
        if unused & X87 != 0 {
            self.bytes[X87_CONTROL].fill(0);
            self.bytes[X87_CONTROL][..2].copy_from_slice(&X87_CONTROL_INITIAL.to_le_bytes());
            self.bytes[X87_REGISTERS].fill(0);
        }
        if unused & SSE != 0 {
            let mxcsr = self.mxcsr();
            self.bytes[XMM_REGISTERS].fill(0);
            self.bytes[MXCSR].copy_from_slice(&mxcsr.to_le_bytes());
        }
        for number in extended(unused) {
            self.component_mut(number).fill(0);
        }
        self.set_in_use(self.in_use() | set);
    }

    /// The bytes of an extended component that the image [`holds`](Self::holds).
    pub(super) fn component(&self, number: usize) -> &[u8] {
        &self.bytes[self.layout.standard(number)]
    }

    /// The bytes of an extended component that the image [`holds`](Self::holds), to be replaced.
    pub(super) fn component_mut(&mut self, number: usize) -> &mut [u8] {
        &mut self.bytes[self.layout.standard(number)]
    }

    /// Bytes of the legacy region.
    pub(super) fn legacy(&self, range: Range<usize>) -> &[u8] {
        &self.bytes[..HEADER.start][range]
    }

    /// Bytes of the legacy region, to be replaced.
    pub(super) fn legacy_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        &mut self.bytes[..HEADER.start][range]
    }

    fn array<const N: usize>(&self, range: Range<usize>) -> [u8; N] {
        let mut array = [0; N];
        array.copy_from_slice(&self.bytes[range]);
        array
    }
}
