// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Clients of `attach`: what they send is the input, signals and size of a detached workload. Its output reaches them from
//! the logs (`vmm/src/api/log_streams.rs`). Part of `main`'s event loop.

use super::Monitor;
use crate::api::frame::ClientFrame;
use crate::api::server::ClientId;
use crate::machine::supervisor::Event;
use std::collections::BTreeSet;

#[derive(Debug, Default)]
pub(super) struct AttachedClients(BTreeSet<ClientId>);

impl AttachedClients {
    pub(super) fn holds(&self, client: ClientId) -> bool {
        self.0.contains(&client)
    }

    pub(super) fn remove(&mut self, client: ClientId) {
        self.0.remove(&client);
    }
}

impl Monitor<'_> {
    pub(super) fn on_attach(&mut self, client: ClientId) {
        let Some(socket) = &mut self.context.socket else { return };
        if socket.attach(client) {
            socket.server.set_read_enabled(client, self.input.wants_input());
            self.attached_clients.0.insert(client);
        }
    }

    pub(super) fn on_attached_frame(&mut self, frame: ClientFrame) {
        match frame {
            // An empty frame, the end of one client's input, is not the workload's: another client may come.
            ClientFrame::Input(bytes) => {
                self.input.push(&bytes);
                self.feed_input();
            }
            ClientFrame::Signal(signal) => self.feed(Event::Kill(signal)),
            ClientFrame::Resize(size) => self.feed(Event::WindowSize(size)),
        }
    }

    /// Passes on input of attached clients as far as the workload takes it. Clients are read while nothing waits.
    pub(super) fn feed_input(&mut self) {
        self.input.flush(&self.epoll);
        let Some(socket) = &mut self.context.socket else { return };
        for client in &self.attached_clients.0 {
            socket.server.set_read_enabled(*client, self.input.wants_input());
        }
    }
}
