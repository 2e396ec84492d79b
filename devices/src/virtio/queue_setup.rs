// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the driver writes about one queue before it is ready: plain values, checked as a whole when
//! the device is activated. Held by the transport, written by vCPU threads under its lock. Virtio
//! 1.3, 2.7 and 4.2.2.

use crate::GuestMemory;
use crate::planted::{PlantedFault, is_planted};
use serde::{Deserialize, Serialize};
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemoryBackend};

/// The registers of one queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct QueueSetup {
    /// Largest size that the device offers.
    pub(super) max_size: u16,
    /// Size that the driver chose, unchecked.
    pub(super) size: u32,
    pub(super) descriptor_table: u64,
    /// The driver area.
    pub(super) available_ring: u64,
    /// The device area.
    pub(super) used_ring: u64,
    pub(super) ready: bool,
}

/// A queue that cannot work as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum QueueSetupError {
    #[error("size {0} is not a power of two within the device's limit")]
    Size(u32),
    #[error("{part} at {address:#x} is misaligned or not in memory")]
    Address { part: &'static str, address: u64 },
}

impl QueueSetup {
    pub(super) fn new(max_size: u16) -> Self {
        let size = u32::from(max_size);
        Self { max_size, size, descriptor_table: 0, available_ring: 0, used_ring: 0, ready: false }
    }

    /// The ring that the driver described, or one that is not ready if it did not configure the
    /// queue.
    pub(super) fn build(&self, memory: &GuestMemory, event_idx: bool) -> Result<Queue, QueueSetupError> {
        let mut queue = Queue::new(self.max_size).expect("identities list powers of two");
        if !self.ready {
            return Ok(queue);
        }
        let size = u16::try_from(self.size).map_err(|_| QueueSetupError::Size(self.size))?;
        queue.try_set_size(size).map_err(|_| QueueSetupError::Size(self.size))?;
        // The last two bytes of a ring are its event index. They exist even if it is not
        // negotiated.
        let entries = usize::from(size);
        let parts = [
            ("descriptor table", self.descriptor_table, 16, 16 * entries),
            ("available ring", self.available_ring, 2, 6 + 2 * entries),
            ("used ring", self.used_ring, 4, 6 + 8 * entries),
        ];
        for (part, address, alignment, length) in parts {
            // virtio-queue takes address 0 for one that was never set.
            let in_memory = address != 0 && memory.check_range(GuestAddress(address), length);
            let is_aligned = address % alignment == 0 || is_planted(PlantedFault::RingAlignment);
            if !in_memory || !is_aligned {
                return Err(QueueSetupError::Address { part, address });
            }
        }
        queue.set_desc_table_address(Some(self.descriptor_table as u32), Some((self.descriptor_table >> 32) as u32));
        queue.set_avail_ring_address(Some(self.available_ring as u32), Some((self.available_ring >> 32) as u32));
        queue.set_used_ring_address(Some(self.used_ring as u32), Some((self.used_ring >> 32) as u32));
        queue.set_event_idx(event_idx);
        queue.set_ready(true);
        Ok(queue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> GuestMemory {
        GuestMemory::from_ranges(&[(GuestAddress(0), 0x10000), (GuestAddress(0x20000), 0x1000)]).unwrap()
    }

    fn setup(size: u32, descriptor_table: u64, available_ring: u64, used_ring: u64) -> QueueSetup {
        QueueSetup { max_size: 16, size, descriptor_table, available_ring, used_ring, ready: true }
    }

    #[test]
    fn queue_in_memory_is_built_as_described() {
        let queue = setup(8, 0x1000, 0x2000, 0x20000).build(&memory(), true).unwrap();
        assert!(queue.ready() && queue.event_idx_enabled());
        assert_eq!((queue.size(), queue.desc_table(), queue.avail_ring()), (8, 0x1000, 0x2000));
        assert_eq!(queue.used_ring(), 0x20000);
    }

    #[test]
    fn setup_rejects_sizes_that_are_zero_odd_or_too_large() {
        for size in [0, 3, 17, 32, 65535, 65536 + 8] {
            let result = setup(size, 0x1000, 0x2000, 0x3000).build(&memory(), false);
            assert_eq!(result, Err(QueueSetupError::Size(size)));
        }
    }

    #[test]
    fn setup_rejects_rings_at_zero_misaligned_or_outside_memory() {
        let good = [0x1000, 0x2000, 0x3000];
        for part in 0..3 {
            for bad in [0, 0x1001, 0x18000, 0xfff0, 0x20ff0, u64::MAX - 15, u64::MAX] {
                let mut at = good;
                at[part] = bad;
                let result = setup(16, at[0], at[1], at[2]).build(&memory(), false);
                // Every ring of 16 entries is longer than the 16 bytes left at the end of a region.
                assert!(matches!(result, Err(QueueSetupError::Address { address, .. }) if address == bad), "{bad:#x}");
            }
        }
    }

    #[test]
    fn queue_that_is_not_configured_is_not_ready() {
        assert!(!QueueSetup::new(16).build(&memory(), false).unwrap().ready());
    }
}
