// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Clients of the control socket that stand for the starter of a detached workload: what they send is its input, signals and
//! size. What it writes comes to them from its logs (`control/log_streams.rs`). Part of `main`'s event loop.

use super::Monitor;
use crate::api::frame::{Frames, FromClient};
use crate::api::server::ClientId;
use crate::machine::supervisor::Event;
use std::collections::BTreeMap;

/// The clients, at most as many as the server has, and what each has sent of a frame.
#[derive(Debug, Default)]
pub(super) struct AttachedClients(BTreeMap<ClientId, Frames>);

impl AttachedClients {
    pub(super) fn holds(&self, client: ClientId) -> bool {
        self.0.contains_key(&client)
    }

    /// One is gone.
    pub(super) fn remove(&mut self, client: ClientId) {
        self.0.remove(&client);
    }
}

impl Monitor<'_> {
    /// A client wants the workload's streams.
    pub(super) fn on_attach(&mut self, client: ClientId) {
        let Some(socket) = &mut self.context.socket else { return };
        if socket.attach(client) {
            socket.server.welcome_input(client, self.input.wants_input());
            self.attached_clients.0.insert(client, Frames::default());
        }
    }

    /// An attached client sent something.
    pub(super) fn on_attached_data(&mut self, client: ClientId, bytes: &[u8]) {
        let Some(frames) = self.attached_clients.0.get_mut(&client) else { return };
        frames.push(bytes);
        let mut events = Vec::new();
        let is_intact = loop {
            match frames.next_from_client() {
                Ok(None) => break true,
                // The end of one client's input is not the workload's: another may come.
                Ok(Some(FromClient::Input(bytes))) => self.input.push(&bytes),
                Ok(Some(FromClient::Signal(signal))) => events.push(Event::Kill(signal)),
                Ok(Some(FromClient::Resize(size))) => events.push(Event::WindowSize(size)),
                Err(_) => break false,
            }
        };
        for event in events {
            self.feed(event);
        }
        if !is_intact {
            // Who does not keep to the protocol is as good as gone.
            self.attached_clients.remove(client);
            if let Some(socket) = &mut self.context.socket {
                socket.detach(client);
            }
        }
        self.feed_input();
    }

    /// Passes on what attached clients have sent, as far as it is taken, and hears them again once it was.
    pub(super) fn feed_input(&mut self) {
        self.input.flush(&self.epoll);
        let Some(socket) = &mut self.context.socket else { return };
        for client in self.attached_clients.0.keys() {
            socket.server.welcome_input(*client, self.input.wants_input());
        }
    }
}
