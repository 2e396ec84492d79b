// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a service manager is told of a run, if one asked for it: the run's own news, and what the workload says by
//! `--ready-notify`. Used by `main`'s event loop.

use crate::host::service_manager::ServiceManager;
use guest_init::notification::Notification;
use std::time::Duration;

/// Tells the service manager, or nobody.
#[derive(Debug)]
pub struct Herald {
    manager: Option<ServiceManager>,
    /// The workload answers for itself: it sends what the watchdog waits for, and says how it is.
    workload_speaks: bool,
    stopping: bool,
}

impl Herald {
    /// For a run whose workload speaks to its service manager itself, or does not.
    #[must_use]
    pub fn new(manager: Option<ServiceManager>, workload_speaks: bool) -> Self {
        Self { manager, workload_speaks, stopping: false }
    }

    /// How often [`alive`](Self::alive) is to be called.
    #[must_use]
    pub fn interval(&self) -> Option<Duration> {
        self.manager.as_ref().filter(|_| !self.workload_speaks)?.watchdog_interval()
    }

    /// `main` runs.
    pub fn alive(&self) {
        self.manager.iter().for_each(ServiceManager::alive);
    }

    /// The workload is ready.
    pub fn ready(&self) {
        self.manager.iter().for_each(ServiceManager::ready);
    }

    /// The run is asked to end, or ends.
    pub fn stopping(&mut self) {
        if !std::mem::replace(&mut self.stopping, true) {
            self.manager.iter().for_each(ServiceManager::stopping);
        }
    }

    /// The workload said this. That it is ready comes by [`ready`](Self::ready).
    pub fn pass_on(&mut self, said: &Notification) {
        if let Some(manager) = &self.manager {
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
