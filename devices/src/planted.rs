// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Faults that a test plants, one at a time in the whole process, to see that the table of the hostile
//! guest finds them: by [`plant`], or by the name of one in the environment variable
//! `CORACLE_PLANTED_FAULT`. Without the feature `planted-faults` no fault can be planted, and each check
//! is a constant.

#[cfg(feature = "planted-faults")]
use std::sync::atomic::{AtomicU8, Ordering};

/// A check that is left out, or a wrong value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PlantedFault {
    /// The used ring has one byte more than was written.
    UsedLength = 1,
    /// Used buffers are not reported.
    NoInterrupt,
    /// A head is taken again while it is in flight.
    RepeatedHead,
    /// A buffer without bytes is accepted.
    EmptyBuffer,
    /// A readable buffer is accepted after a writable one.
    BufferOrder,
    /// A chain goes on after an indirect table.
    IndirectNext,
    /// Every step of the driver status is taken.
    StatusStep,
    /// Features that are not offered are accepted.
    UnofferedFeature,
    /// Misaligned rings are accepted.
    RingAlignment,
    /// A queue can be described when it is ready.
    ReadyQueue,
    /// A request may go past the end of the disk.
    SectorRange,
    /// A command of the control queue may be followed by anything.
    CommandLength,
    /// Any number of pairs of queues can be used.
    PairCount,
}

#[cfg(feature = "planted-faults")]
impl PlantedFault {
    /// Every fault that can be planted.
    pub const ALL: [Self; 13] = [
        Self::UsedLength,
        Self::NoInterrupt,
        Self::RepeatedHead,
        Self::EmptyBuffer,
        Self::BufferOrder,
        Self::IndirectNext,
        Self::StatusStep,
        Self::UnofferedFeature,
        Self::RingAlignment,
        Self::ReadyQueue,
        Self::SectorRange,
        Self::CommandLength,
        Self::PairCount,
    ];
}

#[cfg(feature = "planted-faults")]
static PLANTED: AtomicU8 = AtomicU8::new(UNKNOWN);
/// The environment has not been read.
#[cfg(feature = "planted-faults")]
const UNKNOWN: u8 = u8::MAX;

/// Plants `fault` in place of the one before, or none.
#[cfg(feature = "planted-faults")]
pub fn plant(fault: Option<PlantedFault>) {
    PLANTED.store(fault.map_or(0, |fault| fault as u8), Ordering::SeqCst);
}

#[cfg(feature = "planted-faults")]
pub(crate) fn is_planted(fault: PlantedFault) -> bool {
    if PLANTED.load(Ordering::SeqCst) == UNKNOWN {
        plant(of_environment());
    }
    PLANTED.load(Ordering::SeqCst) == fault as u8
}

/// A name that is not one of a fault is a mistake of the test.
#[cfg(feature = "planted-faults")]
fn of_environment() -> Option<PlantedFault> {
    let name = std::env::var("CORACLE_PLANTED_FAULT").ok()?;
    let fault = PlantedFault::ALL.into_iter().find(|fault| format!("{fault:?}") == name);
    Some(fault.expect("CORACLE_PLANTED_FAULT names a fault"))
}

#[cfg(not(feature = "planted-faults"))]
#[inline]
pub(crate) const fn is_planted(_: PlantedFault) -> bool {
    false
}
