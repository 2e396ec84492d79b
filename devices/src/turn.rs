// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The budget of one call of a worker. The event loop makes a [`Turn`] for each call, so that the
//! other workers of the loop, a reset and a stop wait for a few milliseconds at most, however much
//! the guest has queued. Used on event loops.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Time after which a turn is over.
pub const MAX_TURN_TIME: Duration = Duration::from_millis(5);
/// Bytes moved between guest and host after which a turn is over.
pub const MAX_TURN_BYTES: u64 = 4 << 20;
/// Bytes that a worker moves before it looks at its turn again. A turn exceeds its budget by one
/// step at most.
pub const MAX_STEP_BYTES: u64 = 1 << 20;

/// One call of a worker: how much it may do, and whether its event loop is stopping.
#[derive(Debug)]
pub struct Turn<'s> {
    stop: Option<&'s AtomicBool>,
    deadline: Option<Instant>,
    bytes_left: u64,
}

impl<'s> Turn<'s> {
    /// A turn that starts now. It is also over as soon as `stop` is set.
    #[must_use]
    pub fn new(stop: &'s AtomicBool) -> Self {
        Self { stop: Some(stop), deadline: Instant::now().checked_add(MAX_TURN_TIME), bytes_left: MAX_TURN_BYTES }
    }

    /// A turn that is never over: for [`Worker::drain`](crate::virtio::Worker::drain), when no vCPU
    /// adds work, and for tests and fuzz targets that call a worker without an event loop.
    #[must_use]
    pub fn unlimited() -> Self {
        Self { stop: None, deadline: None, bytes_left: u64::MAX }
    }

    /// Charges `bytes` that were moved.
    pub fn spend(&mut self, bytes: u64) {
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
    }

    /// Whether the worker must return. Work that is left is done in a later turn; see
    /// [`Virtqueue::reschedule`](crate::virtio::queue::Virtqueue::reschedule).
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.bytes_left == 0
            || self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed))
            || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turn_ends_after_its_bytes() {
        let stop = AtomicBool::new(false);
        let mut turn = Turn { deadline: None, ..Turn::new(&stop) };
        turn.spend(MAX_TURN_BYTES - 1);
        assert!(!turn.is_over());
        turn.spend(u64::MAX);
        assert!(turn.is_over());
    }

    #[test]
    fn turn_ends_when_its_time_is_up_or_the_loop_stops() {
        let stop = AtomicBool::new(false);
        let turn = Turn::new(&stop);
        std::thread::sleep(MAX_TURN_TIME);
        assert!(turn.is_over());
        let turn = Turn { deadline: None, ..Turn::new(&stop) };
        assert!(!turn.is_over());
        stop.store(true, Ordering::Relaxed);
        assert!(turn.is_over());
    }
}
