// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where the next virtio device goes: its MMIO window and its interrupt line. Pure.

use boot::layout;
use vm_memory::GuestAddress;

/// One device's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// Start of its register window.
    pub(super) window: GuestAddress,
    /// Its interrupt line (global system interrupt).
    pub(super) line: u32,
}

/// Hands out places in order; the order is what the guest sees as `vda`, `vdb`, ...
#[derive(Debug, Default)]
pub(super) struct Slots {
    taken: u32,
}

impl Slots {
    /// The next place, or `None` when the interrupt lines are used up.
    pub(super) fn next_slot(&mut self) -> Option<Slot> {
        let line = layout::FIRST_VIRTIO_IRQ + self.taken;
        if line > layout::LAST_VIRTIO_IRQ {
            return None;
        }
        let window = layout::VIRTIO_MMIO_BASE.0 + u64::from(self.taken) * layout::VIRTIO_MMIO_WINDOW;
        self.taken += 1;
        Some(Slot { window: GuestAddress(window), line })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn places_are_distinct_and_end_with_the_interrupt_lines() {
        let mut slots = Slots::default();
        let places: Vec<Slot> = std::iter::from_fn(|| slots.next_slot()).collect();
        let windows: HashSet<u64> = places.iter().map(|slot| slot.window.0).collect();
        let lines: HashSet<u32> = places.iter().map(|slot| slot.line).collect();
        assert_eq!(windows.len(), places.len());
        assert_eq!(lines.len(), places.len());
        assert_eq!(places.len() as u32, layout::LAST_VIRTIO_IRQ - layout::FIRST_VIRTIO_IRQ + 1);
        assert_eq!(slots.next_slot(), None);
    }
}
