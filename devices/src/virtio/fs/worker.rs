// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Serves the requests of one share, one after the other. Runs on the share's own event loop.

use super::super::queue::{Served, Virtqueue};
use super::super::{Activation, Worker};
use super::server::Server;
use crate::event_loop::Source;
use crate::turn::Turn;
use vmm_sys_util::epoll::EventSet;

pub(super) struct FsWorker {
    urgent: Virtqueue,
    requests: Virtqueue,
    server: Server,
}

impl FsWorker {
    pub(super) fn new(mut activation: Activation, server: Server) -> Self {
        let requests = activation.queues.remove(1);
        Self { urgent: activation.queues.remove(0), requests, server }
    }
}

impl Worker for FsWorker {
    fn sources(&self) -> Vec<Source> {
        vec![Source::event(self.urgent.queue_event(), 0), Source::event(self.requests.queue_event(), 1)]
    }

    fn start(&mut self, turn: &mut Turn<'_>) {
        let server = &mut self.server;
        self.urgent.serve(turn, |chain| Served::Done(server.serve(chain)));
        self.requests.serve(turn, |chain| Served::Done(server.serve(chain)));
    }

    fn process(&mut self, _: u32, _: EventSet, turn: &mut Turn<'_>) {
        self.start(turn);
    }
}
