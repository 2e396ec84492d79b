// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Assigns each virtio device its MMIO window and its interrupt line. Pure.

use boot::{MmioDevice, layout};
use vm_memory::GuestAddress;

/// Assigns places in order. Disks appear in the guest in this order, as `vda`, `vdb`, ...
#[derive(Debug, Default)]
pub(super) struct Slots {
    taken: Vec<MmioDevice>,
}

impl Slots {
    /// The next place; `None` if no interrupt line is left.
    pub(super) fn next_slot(&mut self) -> Option<MmioDevice> {
        let number = self.taken.len() as u32;
        let line = layout::FIRST_VIRTIO_IRQ + number;
        if line > layout::LAST_VIRTIO_IRQ {
            return None;
        }
        let window = layout::VIRTIO_MMIO_BASE.0 + u64::from(number) * layout::VIRTIO_MMIO_WINDOW;
        let slot = MmioDevice { window: GuestAddress(window), line };
        self.taken.push(slot);
        Some(slot)
    }

    /// The assigned places, in order.
    pub(super) fn taken(&self) -> &[MmioDevice] {
        &self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn slots_are_distinct_and_end_with_the_interrupt_lines() {
        let mut slots = Slots::default();
        let places: Vec<MmioDevice> = std::iter::from_fn(|| slots.next_slot()).collect();
        let windows: HashSet<u64> = places.iter().map(|slot| slot.window.0).collect();
        let lines: HashSet<u32> = places.iter().map(|slot| slot.line).collect();
        assert_eq!(windows.len(), places.len());
        assert_eq!(lines.len(), places.len());
        assert_eq!(places.len() as u32, layout::LAST_VIRTIO_IRQ - layout::FIRST_VIRTIO_IRQ + 1);
        assert_eq!(slots.next_slot(), None);
        assert_eq!(slots.taken(), places);
    }
}
