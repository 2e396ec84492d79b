// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a service manager is told of a run, if one asked for it: the run's own news, and what the workload says by
//! `--ready-notify`. Used by `main`'s event loop.

use crate::host::service_manager::ServiceManager;
use guest_protocol::notification::{Notification, Reload};
use std::time::Duration;

/// Tells the service manager, or nobody.
#[derive(Debug)]
pub(crate) struct ServiceNotifier {
    manager: Option<ServiceManager>,
    /// The workload answers for itself: it sends what the watchdog waits for, and says how it is.
    workload_speaks: bool,
    ready: bool,
    reloading: bool,
    stopping: bool,
}

impl ServiceNotifier {
    /// For a run whose workload speaks to its service manager itself, or does not.
    #[must_use]
    pub(crate) fn new(manager: Option<ServiceManager>, workload_speaks: bool) -> Self {
        Self { manager, workload_speaks, ready: false, reloading: false, stopping: false }
    }

    /// How often [`beat`](Self::beat) is to be called: twice in the time of the watchdog.
    #[must_use]
    pub(crate) fn interval(&self) -> Option<Duration> {
        Some(self.manager.as_ref()?.watchdog()? / 2)
    }

    /// `main` runs. A workload that speaks for itself has to say so itself, but while it is `paused` it cannot.
    pub(crate) fn beat(&self, paused: bool) {
        if paused || !self.workload_speaks {
            self.manager.iter().for_each(ServiceManager::alive);
        }
    }

    /// The workload is ready.
    pub(crate) fn ready(&mut self) {
        self.ready = true;
        self.manager.iter().for_each(ServiceManager::ready);
    }

    /// The run is asked to end, or ends.
    pub(crate) fn stopping(&mut self) {
        if !std::mem::replace(&mut self.stopping, true) {
            self.manager.iter().for_each(ServiceManager::stopping);
        }
    }

    /// The workload said this. That it is ready for the first time comes by [`ready`](Self::ready).
    pub(crate) fn pass_on(&mut self, said: &Notification) {
        if let Some(manager) = &self.manager {
            if said.ready && std::mem::take(&mut self.reloading) {
                manager.ready();
            }
            if let Some(reload) = said.reload.filter(|_| self.ready) {
                manager.reloading();
                self.reloading = reload == Reload::Begun;
                if !self.reloading {
                    manager.ready();
                }
            }
            if let Some(microseconds) = said.extend_timeout {
                manager.extend_timeout(Duration::from_micros(microseconds));
            }
            if let Some(status) = &said.status {
                manager.status(status);
            }
            if said.watchdog {
                manager.alive();
            }
        }
        if said.stopping {
            self.stopping();
        }
    }
}
