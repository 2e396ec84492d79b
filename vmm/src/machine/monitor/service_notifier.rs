// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Notifications to a service manager: the run's own, and those of the workload with
//! `--ready-notify`. Used by `main`.

use crate::host::service_manager::ServiceManager;
use guest_protocol::notification::{Notification, Reload};
use std::time::Duration;

/// Without a service manager nothing is sent.
#[derive(Debug)]
pub(crate) struct ServiceNotifier {
    manager: Option<ServiceManager>,
    /// The workload has its own connection (`--ready-notify`): its notifications include those for
    /// the watchdog.
    workload_notifies: bool,
    ready: bool,
    reloading: bool,
    stopping: bool,
}

impl ServiceNotifier {
    #[must_use]
    pub(crate) fn new(manager: Option<ServiceManager>, workload_notifies: bool) -> Self {
        Self { manager, workload_notifies, ready: false, reloading: false, stopping: false }
    }

    /// Time between two calls of [`heartbeat`](Self::heartbeat): half the watchdog's.
    #[must_use]
    pub(crate) fn interval(&self) -> Option<Duration> {
        Some(self.manager.as_ref()?.watchdog()? / 2)
    }

    /// `main` runs. A workload that notifies the watchdog itself has to show that it runs, except
    /// while it is `paused`.
    pub(crate) fn heartbeat(&self, paused: bool) {
        if paused || !self.workload_notifies {
            self.manager.iter().for_each(ServiceManager::alive);
        }
    }

    /// The workload is ready.
    pub(crate) fn ready(&mut self) {
        self.ready = true;
        self.manager.iter().for_each(ServiceManager::ready);
    }

    /// The run ends, or was asked to. Only the first call has an effect.
    pub(crate) fn stopping(&mut self) {
        if !std::mem::replace(&mut self.stopping, true) {
            self.manager.iter().for_each(ServiceManager::stopping);
        }
    }

    /// Passes on a notification of the workload, except that it is ready for the first time: see
    /// [`ready`](Self::ready).
    pub(crate) fn pass_on(&mut self, notification: &Notification) {
        if let Some(manager) = &self.manager {
            if notification.ready && std::mem::take(&mut self.reloading) {
                manager.ready();
            }
            if let Some(reload) = notification.reload.filter(|_| self.ready) {
                manager.reloading();
                self.reloading = reload == Reload::Begun;
                if !self.reloading {
                    manager.ready();
                }
            }
            if let Some(microseconds) = notification.extend_timeout {
                manager.extend_timeout(Duration::from_micros(microseconds));
            }
            if let Some(status) = &notification.status {
                manager.status(status);
            }
            if notification.watchdog {
                manager.alive();
            }
        }
        if notification.stopping {
            self.stopping();
        }
    }
}
