// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A vCPU's extended state as the host returns it: an XSAVE area in standard format, whose header
//! tells which components are in use. The bytes of a component that is not in use have no meaning:
//! it is initial.
//!
//! Which initial components count as in use differs between CPUs: on Intel x87 does after `FNINIT`,
//! on AMD it does not.

use super::processor::Processor;
use super::xsave_layout::{
    AVX, HEADER, MXCSR, MXCSR_INITIAL, PKRU_NUMBER, SSE, X87, X87_CONTROL, X87_CONTROL_INITIAL, X87_REGISTERS,
    XMM_REGISTERS, XSTATE_BV, XstateLayout, extended,
};
use std::ops::Range;

/// A view of the state, for reading and changing.
pub(super) struct ExtendedState<'a> {
    bytes: &'a mut [u8],
    processor: &'a Processor,
}

impl<'a> ExtendedState<'a> {
    /// A view of `bytes`, in the layout of `processor`.
    pub(super) fn new(bytes: &'a mut [u8], processor: &'a Processor) -> Self {
        assert!(bytes.len() >= HEADER.end, "the host's extended state has a header");
        Self { bytes, processor }
    }

    pub(super) fn layout(&self) -> &'a XstateLayout {
        &self.processor.xstate
    }

    /// Whether the bytes include every component in `set`.
    pub(super) fn holds(&self, set: u64) -> bool {
        self.layout().holds(set) && extended(set).all(|number| self.layout().standard(number).end <= self.bytes.len())
    }

    /// The components in use.
    pub(super) fn in_use(&self) -> u64 {
        u64::from_le_bytes(self.array(XSTATE_BV))
    }

    /// Sets the components in use, and the rest of the header as the standard format requires.
    pub(super) fn set_in_use(&mut self, set: u64) {
        self.bytes[HEADER].fill(0);
        self.bytes[XSTATE_BV].copy_from_slice(&set.to_le_bytes());
    }

    /// MXCSR. The host keeps it while XMM or YMM registers are in use.
    pub(super) fn mxcsr(&self) -> u32 {
        if self.in_use() & (SSE | AVX) == 0 { MXCSR_INITIAL } else { u32::from_le_bytes(self.array(MXCSR)) }
    }

    /// Sets MXCSR. A value other than the initial one marks the XMM registers as in use, so that
    /// the host keeps it.
    pub(super) fn set_mxcsr(&mut self, value: u32) {
        if value != MXCSR_INITIAL {
            self.materialize(SSE);
        }
        self.bytes[MXCSR].copy_from_slice(&value.to_le_bytes());
    }

    /// The bits of MXCSR that may be set.
    pub(super) fn mxcsr_mask(&self) -> u32 {
        self.processor.mxcsr_mask
    }

    /// PKRU; zero where the CPU has none.
    pub(super) fn pkru(&self) -> u32 {
        let range = self.layout().standard(PKRU_NUMBER);
        let in_use = self.in_use() & 1 << PKRU_NUMBER != 0 && range.len() >= 4 && range.end <= self.bytes.len();
        if in_use { u32::from_le_bytes(self.array(range.start..range.start + 4)) } else { 0 }
    }

    /// Marks the components in `set` as in use. Those that were not become their initial values,
    /// byte by byte.
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

    /// The bytes of an extended component. Panics unless the state [`holds`](Self::holds) it.
    pub(super) fn component(&self, number: usize) -> &[u8] {
        &self.bytes[self.layout().standard(number)]
    }

    /// As [`component`](Self::component).
    pub(super) fn component_mut(&mut self, number: usize) -> &mut [u8] {
        let range = self.layout().standard(number);
        &mut self.bytes[range]
    }

    /// Bytes of the legacy region.
    pub(super) fn legacy(&self, range: Range<usize>) -> &[u8] {
        &self.bytes[..HEADER.start][range]
    }

    pub(super) fn legacy_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        &mut self.bytes[..HEADER.start][range]
    }

    fn array<const N: usize>(&self, range: Range<usize>) -> [u8; N] {
        let mut array = [0; N];
        array.copy_from_slice(&self.bytes[range]);
        array
    }
}
