// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The credit of one connection in both directions: what the guest may send and what it can
//! receive. Pure. Virtio 1.3, 5.10.6.3.
//!
//! Counters are modulo 2^32, as in packets. What the guest claims is believed only as far as it
//! concerns its own buffers.

use super::packet::Header;
use std::num::Wrapping;

#[derive(Clone, Debug, Default)]
pub(super) struct Credit {
    /// Space for data of the guest, fixed for the life of the connection.
    buffer_size: u32,
    /// Bytes that the guest has sent.
    received: Wrapping<u32>,
    /// Those that have left the buffer.
    forwarded: Wrapping<u32>,
    /// `forwarded` as the guest was last informed of it.
    announced: Wrapping<u32>,
    /// Bytes that the guest was sent.
    sent: Wrapping<u32>,
    guest_buffer_size: u32,
    guest_forwarded: Wrapping<u32>,
}

impl Credit {
    pub(super) fn new(buffer_size: u32) -> Self {
        Self { buffer_size, ..Self::default() }
    }

    pub(super) fn buffer_size(&self) -> u32 {
        self.buffer_size
    }

    /// Takes in what a packet of the guest says of its buffer.
    pub(super) fn learn(&mut self, header: &Header) {
        self.guest_buffer_size = header.buffer_size.get();
        self.guest_forwarded = Wrapping(header.forwarded.get());
    }

    /// Bytes that the guest can receive now.
    pub(super) fn available(&self) -> u32 {
        // A guest that claims to have read more than it was sent has no space.
        self.guest_buffer_size.saturating_sub((self.sent - self.guest_forwarded).0)
    }

    /// Counts data to the guest, no more than is [`available`](Self::available).
    pub(super) fn send(&mut self, length: u32) {
        self.sent += length;
    }

    /// Counts data from the guest. `false` if it exceeds what the guest was granted.
    #[must_use]
    pub(super) fn receive(&mut self, length: u32) -> bool {
        let waiting = (self.received - self.forwarded).0;
        let fits = length <= self.buffer_size - waiting;
        if fits {
            self.received += length;
        }
        fits
    }

    /// Counts data that has left the buffer.
    pub(super) fn forward(&mut self, length: u32) {
        self.forwarded += length;
    }

    /// Whether the guest should be informed of the space that there is: it knows of a quarter less.
    pub(super) fn is_update_due(&self) -> bool {
        (self.forwarded - self.announced).0 >= self.buffer_size / 4
    }

    /// Fills in the fields of a packet to the guest.
    pub(super) fn announce(&mut self, header: &mut Header) {
        self.announced = self.forwarded;
        header.buffer_size = self.buffer_size.into();
        header.forwarded = self.forwarded.0.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned(buffer_size: u32, forwarded: u32, sent: u32) -> u32 {
        let mut credit = Credit { sent: Wrapping(sent), ..Credit::new(100) };
        credit.learn(&Header { buffer_size: buffer_size.into(), forwarded: forwarded.into(), ..Header::default() });
        credit.available()
    }

    #[test]
    fn available_is_what_the_guest_has_left_whatever_it_claims() {
        assert_eq!(learned(1000, 0, 400), 600);
        assert_eq!(learned(1000, 400, 400), 1000);
        assert_eq!(learned(1000, u32::MAX - 9, 90), 900, "counters wrap");
        assert_eq!(learned(300, 0, 400), 0, "a buffer that became smaller");
        assert_eq!(learned(1000, 401, 400), 0, "more than was sent");
        assert_eq!(learned(u32::MAX, 0, 0), u32::MAX);
    }

    #[test]
    fn receive_accepts_what_was_granted_and_no_more() {
        let mut credit = Credit { received: Wrapping(u32::MAX), forwarded: Wrapping(u32::MAX), ..Credit::new(100) };
        assert!(credit.receive(60) && credit.receive(40) && credit.receive(0));
        assert!(!credit.receive(1));
        credit.forward(10);
        assert!(!credit.receive(11) && credit.receive(10) && !credit.receive(u32::MAX));
    }

    #[test]
    fn update_is_due_after_a_quarter_and_until_the_next_packet() {
        let mut credit = Credit::new(100);
        assert!(credit.receive(100) && !credit.is_update_due());
        credit.forward(24);
        assert!(!credit.is_update_due());
        credit.forward(1);
        assert!(credit.is_update_due());
        let mut header = Header::default();
        credit.announce(&mut header);
        assert_eq!((header.buffer_size.get(), header.forwarded.get(), credit.is_update_due()), (100, 25, false));
    }
}
