// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A pair of queues: frames to the guest and from it. Runs on the event loop of the interface.

use super::super::queue::{Taken, Virtqueue};
use super::host_side::HostSide;
use super::packet::{HEADER_SIZE, segments, set_buffers};
use crate::rate_limit::Direction;
use crate::turn::Turn;
use std::sync::atomic::Ordering;

/// Frames from the backend that are handled in one turn.
const MAX_RECEIVED: u32 = 1024;
/// Frames from the backend that are dropped in a row before a buffer is returned empty.
const MAX_DROPS: u32 = 64;

pub(super) struct Pair {
    pub(super) receive: Virtqueue,
    pub(super) transmit: Virtqueue,
    /// Buffers for the next frame, as far as they were needed.
    buffers: Vec<Taken>,
    /// Bytes of `buffers`.
    space: usize,
    /// Frames that were dropped since the last that was received.
    drops: u32,
}

impl Pair {
    pub(super) fn new(receive: Virtqueue, transmit: Virtqueue) -> Self {
        Self { receive, transmit, buffers: Vec::new(), space: 0, drops: 0 }
    }

    /// Passes frames of the backend's queue `queue` to the guest until there is none, the guest has no
    /// buffers, or the turn is over.
    pub(super) fn receive(&mut self, host: &mut HostSide, queue: usize, turn: &mut Turn<'_>) {
        for _ in 0..MAX_RECEIVED {
            if turn.is_over() {
                break;
            }
            // The backend is not read before there is a buffer.
            if !host.may_receive(queue) || !self.add_buffers(host, 1) || !host.limiter.admits(Direction::ToGuest) {
                return;
            }
            let Some(length) = host.next_length(queue) else { continue };
            if !self.add_buffers(host, length) {
                if host.rules.is_merging() && self.buffers.len() < usize::from(self.receive.size()) {
                    // The frame waits for more.
                    return;
                }
                host.drop_received(queue);
                self.drops += 1;
                if self.drops >= MAX_DROPS {
                    // The buffers are too small for what comes. They are returned, so that this
                    // does not stall.
                    self.receive.finish_many(self.buffers.drain(..).map(|taken| (taken, 0)));
                    (self.space, self.drops) = (0, 0);
                }
                continue;
            }
            self.fill(host, queue, length);
            turn.spend(length as u64);
        }
        self.receive.reschedule();
    }

    /// Takes buffers until there is space for `length` bytes. `false` if there is less for now, or
    /// if buffers are not merged and the one that there is, is too small.
    fn add_buffers(&mut self, host: &HostSide, length: usize) -> bool {
        while self.space < length {
            if !self.buffers.is_empty() && !host.rules.is_merging() {
                return false;
            }
            let Some(taken) = self.receive.take() else { return false };
            let space = taken.chain().writable.remaining();
            if space < HEADER_SIZE {
                // The header must be in one buffer.
                self.receive.finish(taken, 0);
                continue;
            }
            self.space += space;
            self.buffers.push(taken);
        }
        true
    }

    /// Writes the received packet, which has `length` bytes, to the buffers, and returns them.
    fn fill(&mut self, host: &mut HostSide, queue: usize, length: usize) {
        let Self { receive, buffers, .. } = self;
        let Ok(packet) = host.host_end.receive(queue) else { return };
        host.limiter.spend(Direction::ToGuest, (length - HEADER_SIZE) as u64, segments(packet, packet.len()));
        // No more than the queue has.
        set_buffers(packet, buffers.len() as u16);
        let mut rest = &*packet;
        receive.finish_many(buffers.drain(..).map(|taken| {
            let mut place = taken.chain().writable;
            let (now, later) = rest.split_at(place.remaining().min(rest.len()));
            place.write_all(now).expect("the length was compared with the space");
            rest = later;
            // A packet is shorter than 4 GiB.
            (taken, now.len() as u32)
        }));
        (self.space, self.drops) = (0, 0);
        host.host_end.consume(queue);
        host.link.counters.rx_bytes.fetch_add((length - HEADER_SIZE) as u64, Ordering::Relaxed);
        host.link.counters.rx_packets.fetch_add(1, Ordering::Relaxed);
    }

    /// Passes on what the guest sends, to the backend's queue `queue`.
    pub(super) fn transmit(&mut self, host: &mut HostSide, queue: usize, turn: &mut Turn<'_>) {
        self.transmit.serve(turn, |chain| host.send(queue, chain));
        host.host_end.flush();
    }
}
