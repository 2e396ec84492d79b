// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Bounds on what the guest reports for others to see: how often, and which text. Pure.

use super::{Action, Supervisor, TimerKind};
use guest_protocol::health::{HealthReport, MAX_OUTPUT_BYTES};
use guest_protocol::notification::{Notification, Reload};
use guest_protocol::protocol::ToHost;
use std::net::IpAddr;
use std::time::Duration;

/// Between two health reports that change the status: each rewrites `status.json`.
pub(super) const HEALTH_INTERVAL: Duration = Duration::from_millis(100);
/// Between two messages to the service manager. PID 1 keeps it, too.
pub(super) const NOTIFICATION_INTERVAL: Duration = Duration::from_millis(50);
/// Between two reports of the interfaces' addresses that are passed on.
pub(super) const ADDRESSES_INTERVAL: Duration = Duration::from_secs(1);
/// Of all interfaces together; further ones are not shown.
const MAX_ADDRESSES: usize = 64;

/// Passes the first value on at once. Values that follow before the timer expires are merged and
/// wait for it.
#[derive(Debug)]
pub(super) struct Throttle<T> {
    timer_runs: bool,
    pending: Option<T>,
}

impl<T> Default for Throttle<T> {
    fn default() -> Self {
        Self { timer_runs: false, pending: None }
    }
}

impl<T> Throttle<T> {
    /// Returns `value` if it may be passed on now; the caller starts the timer.
    pub(super) fn pass(&mut self, value: T, merge: impl FnOnce(&mut T, T)) -> Option<T> {
        if !std::mem::replace(&mut self.timer_runs, true) {
            return Some(value);
        }
        match &mut self.pending {
            Some(pending) => merge(pending, value),
            None => self.pending = Some(value),
        }
        None
    }

    /// The timer expired. Returns the value that waited, to be given to [`pass`](Self::pass).
    pub(super) fn expire(&mut self) -> Option<T> {
        self.timer_runs = false;
        self.pending.take()
    }
}

/// Adds `new` to a notification that waits.
pub(super) fn merge(pending: &mut Notification, new: Notification) {
    match (pending.reload, new.ready) {
        (Some(_), true) => pending.reload = Some(Reload::Done),
        (_, ready) => pending.ready |= ready,
    }
    pending.reload = new.reload.or(pending.reload);
    pending.stopping |= new.stopping;
    pending.watchdog |= new.watchdog;
    pending.extend_timeout = new.extend_timeout.or(pending.extend_timeout);
    pending.status = new.status.or(pending.status.take());
}

/// The begin of a health check's output, without control characters but line feeds and tabs.
pub(super) fn clean(output: &str) -> String {
    let mut end = output.len().min(MAX_OUTPUT_BYTES);
    while !output.is_char_boundary(end) {
        end -= 1;
    }
    let is_shown = |character: char| !character.is_control() || matches!(character, '\n' | '\t');
    output[..end].chars().map(|character| if is_shown(character) { character } else { ' ' }).collect()
}

impl Supervisor {
    pub(super) fn on_health(&mut self, report: HealthReport) {
        let report = HealthReport { output: clean(&report.output), ..report };
        if let Some(report) = self.health.pass(report, |pending, new| *pending = new) {
            self.actions.extend([Action::Health(report), Action::SetTimer(TimerKind::Health, HEALTH_INTERVAL)]);
        }
    }

    pub(super) fn has_dhcp(&self) -> bool {
        self.settings.spec.interfaces.iter().any(|interface| interface.dhcp.is_some())
    }

    pub(super) fn on_addresses(&mut self, mut addresses: Vec<IpAddr>) {
        addresses.truncate(MAX_ADDRESSES);
        if let Some(addresses) = self.addresses.pass(addresses, |pending, new| *pending = new) {
            let timer = Action::SetTimer(TimerKind::Addresses, ADDRESSES_INTERVAL);
            self.actions.extend([Action::Addresses(addresses), timer]);
        }
    }

    pub(super) fn on_notification(&mut self, notification: Notification) {
        if let Some(notification) = self.notification.pass(notification, merge) {
            let timer = Action::SetTimer(TimerKind::Notification, NOTIFICATION_INTERVAL);
            self.actions.extend([Action::Notify(notification), timer]);
        }
    }
}

/// The name of a message in an error.
pub(super) fn name(message: &ToHost) -> &'static str {
    match message {
        ToHost::Hello { .. } => "Hello",
        ToHost::Running => "Running",
        ToHost::Failed { .. } => "Failed",
        ToHost::Ended { .. } => "Ended",
        ToHost::Exec { .. } => "Exec",
        ToHost::Addresses(_) => "Addresses",
        ToHost::Ready => "Ready",
        ToHost::Health(_) => "Health",
        ToHost::Notification(_) => "Notification",
        ToHost::Frozen => "Frozen",
        ToHost::NotFrozen { .. } => "NotFrozen",
        ToHost::Resumed => "Resumed",
        ToHost::ScratchFrozen(_) => "ScratchFrozen",
        ToHost::RootPrepared => "RootPrepared",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throttle_passes_the_first_value_and_merges_the_next_ones() {
        let mut throttle = Throttle::default();
        let sum = |pending: &mut u32, new| *pending += new;
        assert_eq!(throttle.pass(1, sum), Some(1));
        assert_eq!((throttle.pass(2, sum), throttle.pass(3, sum)), (None, None));
        assert_eq!(throttle.expire(), Some(5));
        assert_eq!(throttle.pass(5, sum), Some(5));
        assert_eq!(throttle.expire(), None);
        assert_eq!(throttle.pass(6, sum), Some(6));
    }

    #[test]
    fn merged_notifications_lose_nothing() {
        let reload = |reload| Notification { reload: Some(reload), ..Notification::default() };
        let ready = || Notification { ready: true, ..Notification::default() };
        let mut pending = reload(Reload::Begun);
        merge(&mut pending, ready());
        assert_eq!(pending, reload(Reload::Done));
        merge(&mut pending, reload(Reload::Begun));
        assert_eq!(pending, reload(Reload::Begun));
        let mut pending = Notification { watchdog: true, status: Some("one".into()), ..ready() };
        merge(&mut pending, Notification { stopping: true, extend_timeout: Some(5), ..Notification::default() });
        merge(&mut pending, Notification { status: Some("two".into()), ..Notification::default() });
        let expected = Notification {
            ready: true,
            reload: None,
            stopping: true,
            watchdog: true,
            extend_timeout: Some(5),
            status: Some("two".into()),
        };
        assert_eq!(pending, expected);
    }

    #[test]
    fn output_is_cut_at_a_character_and_has_no_control_characters() {
        assert_eq!(clean("a\tb\nc\u{1b}[2J\0"), "a\tb\nc [2J ");
        let long = clean(&"\u{20ac}".repeat(MAX_OUTPUT_BYTES));
        assert_eq!(long.len(), MAX_OUTPUT_BYTES / 3 * 3);
    }
}
