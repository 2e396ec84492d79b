// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Moves packets between the queues and the connections. Runs on the event loop of the device.

use super::super::queue::Virtqueue;
use super::super::{Activation, Worker};
use super::packet::HEADER_SIZE;
use super::table::Table;
use crate::event_loop::Source;
use crate::turn::Turn;
use vmm_sys_util::epoll::EventSet;
use zerocopy::IntoBytes as _;

/// Tokens: the two queues by their number, and the host's sockets.
const RECEIVE: u32 = 0;
const TRANSMIT: u32 = 1;
const HOST: u32 = 3;
/// Packets to the guest in one turn.
const MAX_RECEIVED: u32 = 1024;

pub(super) struct VsockWorker {
    receive: Virtqueue,
    transmit: Virtqueue,
    /// Kept for the driver, which offers buffers there. There is nothing to report: a machine does
    /// not move to another host.
    _events: Virtqueue,
    table: Table,
    /// There may be events of the host.
    is_host_ready: bool,
}

impl VsockWorker {
    pub(super) fn new(activation: Activation, table: Table) -> Self {
        let mut queues = activation.queues;
        let (receive, transmit, events) = (queues.remove(0), queues.remove(0), queues.remove(0));
        Self { receive, transmit, _events: events, table, is_host_ready: true }
    }

    fn handle_host(&mut self, turn: &Turn<'_>) {
        self.is_host_ready = self.table.handle_host(turn);
        if self.is_host_ready {
            self.receive.reschedule();
        }
    }

    fn transmit(&mut self, turn: &mut Turn<'_>) {
        let Self { transmit, table, .. } = self;
        transmit.serve(turn, |chain| table.handle(chain));
    }

    /// Passes packets to the guest until there is none, the guest has no buffers, or the turn is
    /// over.
    fn receive(&mut self, turn: &mut Turn<'_>) {
        for _ in 0..MAX_RECEIVED {
            if !self.table.has_outgoing() {
                return self.resume();
            }
            if turn.is_over() {
                break;
            }
            let Some(taken) = self.receive.take() else { return self.resume() };
            let mut place = taken.chain().writable;
            // Of no use if a packet with data does not fit.
            let Some(space) = place.remaining().checked_sub(HEADER_SIZE).filter(|space| *space > 0) else {
                self.receive.finish(taken, 0);
                continue;
            };
            let Some((header, data)) = self.table.next_packet(space) else {
                self.receive.put_back(taken);
                continue;
            };
            let written = [header.as_bytes(), data].into_iter().try_for_each(|bytes| place.write_all(bytes));
            written.expect("the length was compared with the space");
            let length = HEADER_SIZE + data.len();
            turn.spend(length as u64);
            // The data is no more than the scratch memory has.
            self.receive.finish(taken, length as u32);
        }
        self.resume();
        self.receive.reschedule();
    }

    /// Has packets of the guest handled that could not be answered before.
    fn resume(&mut self) {
        if self.table.take_resumed() {
            self.transmit.reschedule();
        }
    }
}

impl Worker for VsockWorker {
    fn sources(&self) -> Vec<Source> {
        vec![
            Source::event(self.receive.queue_event(), RECEIVE),
            Source::event(self.transmit.queue_event(), TRANSMIT),
            self.table.host().source(HOST),
        ]
    }

    fn start(&mut self, turn: &mut Turn<'_>) {
        self.handle_host(turn);
        self.transmit(turn);
        self.receive(turn);
    }

    fn process(&mut self, token: u32, _: EventSet, turn: &mut Turn<'_>) {
        match token {
            TRANSMIT => self.transmit(turn),
            HOST => self.handle_host(turn),
            _ if self.is_host_ready => self.handle_host(turn),
            _ => {}
        }
        self.receive(turn);
    }

    fn drain(&mut self) {
        self.transmit(&mut Turn::unlimited());
    }
}
