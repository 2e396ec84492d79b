// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Commands that came before the workload runs and wait for it. Bounded in number and in time; a
//! request has a bounded size, and its client is not read meanwhile. Used by `main`.

use super::server::{ClientId, Command};
use std::time::{Duration, Instant};

/// How long a command waits for the workload. PID 1 gives the start of the workload as long.
pub(crate) const HOLD_LIMIT: Duration = Duration::from_secs(120);
/// Commands at one time, so that half of the clients can do something else.
pub(super) const MAX_HELD: usize = 16;

#[derive(Debug, Default)]
pub(super) struct HeldCommands(Vec<Held>);

#[derive(Debug)]
struct Held {
    client: ClientId,
    command: Command,
    deadline: Instant,
}

impl HeldCommands {
    /// Adds the command of `client`. Returns false if there are [`MAX_HELD`].
    #[must_use]
    pub(super) fn add(&mut self, client: ClientId, command: Command, now: Instant) -> bool {
        let has_room = self.0.len() < MAX_HELD;
        if has_room {
            self.0.push(Held { client, command, deadline: now + HOLD_LIMIT });
        }
        has_room
    }

    /// The client is gone.
    pub(super) fn remove(&mut self, client: ClientId) {
        self.0.retain(|held| held.client != client);
    }

    /// Takes those that are `wanted`, in the order in which they came.
    pub(super) fn take(&mut self, mut wanted: impl FnMut(&Command) -> bool) -> Vec<(ClientId, Command)> {
        let taken = self.0.extract_if(.., |held| wanted(&held.command));
        taken.map(|held| (held.client, held.command)).collect()
    }

    /// Takes the clients whose time is over at `now`.
    pub(super) fn take_expired(&mut self, now: Instant) -> Vec<ClientId> {
        self.0.extract_if(.., |held| held.deadline <= now).map(|held| held.client).collect()
    }

    /// From `now` until the time of one is over.
    pub(super) fn until_next(&self, now: Instant) -> Option<Duration> {
        Some(self.0.iter().map(|held| held.deadline).min()?.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::server::Server;

    #[test]
    fn command_expires_at_its_own_limit() {
        let (start, mut held) = (Instant::now(), HeldCommands::default());
        let clients = [0, 1].map(Server::client_id);
        assert!(held.add(clients[0], Command::Pause, start));
        assert!(held.add(clients[1], Command::Pause, start + Duration::from_secs(9)));
        assert_eq!(held.until_next(start), Some(HOLD_LIMIT));
        assert_eq!(held.take_expired(start + HOLD_LIMIT), clients[..1]);
        assert_eq!(held.take_expired(start + HOLD_LIMIT), []);
        held.remove(clients[1]);
        assert_eq!(held.until_next(start), None);
    }
}
