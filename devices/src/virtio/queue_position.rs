// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How far a queue has come, as plain values: what a new queue over the same ring needs to continue.
//! A queue leaves its position behind when it is dropped, on whichever thread drops its worker.
//!
//! Chains in flight are saved by their heads and not as a distance in the available ring: chains
//! may be finished out of order, and the driver reuses the entry of a head that was read.

use serde::{Deserialize, Serialize};
use std::sync::{Arc, OnceLock};
use virtio_queue::{Queue, QueueT};

/// Receives the position of one queue.
pub(super) type PositionSlot = Arc<OnceLock<QueuePosition>>;

/// How far a queue has come. The next index of the available ring follows from it: every head that
/// was read is in flight or was returned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct QueuePosition {
    pub(super) next_used: u16,
    /// Heads that were offered and not returned, in the order in which they were offered.
    pub(super) in_flight: Vec<u16>,
    /// The ring is never touched again.
    pub(super) is_broken: bool,
}

/// A position that no queue can be at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PositionError {
    #[error("descriptor {0} in flight is outside the table, or listed twice")]
    Head(u16),
    #[error("a queue that is not configured has been used")]
    NotReady,
}

impl QueuePosition {
    /// Whether `ring` can be there.
    pub(super) fn check(&self, ring: &Queue) -> Result<(), PositionError> {
        if !ring.ready() {
            return if *self == Self::default() { Ok(()) } else { Err(PositionError::NotReady) };
        }
        let mut seen = vec![false; usize::from(ring.size())];
        for &head in &self.in_flight {
            match seen.get_mut(usize::from(head)) {
                Some(seen) if !*seen => *seen = true,
                _ => return Err(PositionError::Head(head)),
            }
        }
        Ok(())
    }
}
