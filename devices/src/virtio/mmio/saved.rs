// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The state of a transport, its queues and its device as plain values: saved from one machine, set
//! in another over a copy of its memory. Used while no vCPU runs.
//!
//! To save is to drain and drop the workers, and to restore is to activate the device again: what a
//! device keeps through a reset (a backend, counters) is treated as at a reset, and the machine that
//! was saved runs on by the same code as its copy. Chains that were in flight are taken again.
//!
//! A saved state is untrusted input. It is checked as a whole before anything is changed; what
//! depends on guest memory is checked as at any activation.

use super::{ActivationFailure, MmioTransport};
use crate::virtio::queue_position::{PositionError, QueuePosition};
use crate::virtio::queue_setup::{QueueSetup, QueueSetupError};
use crate::virtio::status::{DRIVER, DRIVER_OK, FEATURES_OK, is_reachable};
use crate::virtio::{DeviceKind, KINDS};
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;
use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_INT_VRING};
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;

/// The state of one transport with its queues and its device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransportState {
    /// Number of the device type.
    device_id: u32,
    /// Without needs-reset.
    status: u32,
    needs_reset: bool,
    interrupt_status: u32,
    config_generation: u32,
    device_features_select: u32,
    driver_features_select: u32,
    driver_features: u64,
    has_features_beyond: bool,
    queue_select: u32,
    queues: Vec<QueueSetup>,
    /// Of a device that is in use.
    active: Option<Active>,
}

/// What exists between activation and reset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Active {
    /// One for each queue.
    positions: Vec<QueuePosition>,
    /// Of the device itself, in a form of its own.
    device: Vec<u8>,
}

impl TransportState {
    /// Of the device, if it is one of [`KINDS`].
    #[must_use]
    pub fn kind(&self) -> Option<&'static DeviceKind> {
        KINDS.into_iter().find(|kind| kind.device_id == self.device_id)
    }

    /// Number of the device type (virtio 1.3, section 5).
    #[must_use]
    pub fn device_id(&self) -> u32 {
        self.device_id
    }

    /// Whether the driver had activated the device.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.active.is_some()
    }

    /// Number of queues.
    #[must_use]
    pub fn queues(&self) -> usize {
        self.queues.len()
    }

    /// What the driver has accepted.
    #[must_use]
    pub fn driver_features(&self) -> u64 {
        self.driver_features
    }
}

/// A device cannot be saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// It has state that is not in its queues.
    #[error("{0}: devices of this type cannot be saved while they are in use")]
    Type(String),
    /// An event loop has ended, and a worker with it.
    #[error("{0}: the device has stopped")]
    Stopped(String),
}

/// A state cannot be set.
#[derive(Debug, thiserror::Error)]
#[error("{device}: {reason}")]
pub struct RestoreError {
    /// Name of the device.
    device: String,
    #[source]
    reason: Reason,
}

#[derive(Debug, thiserror::Error)]
enum Reason {
    #[error("the state is of device type {0}")]
    DeviceType(u32),
    #[error("the state has other queues")]
    Queues,
    #[error("driver status {0:#x} is impossible")]
    Status(u32),
    #[error("interrupt status {0:#x} is impossible")]
    InterruptStatus(u32),
    #[error("driver features {0:#x} are impossible, or not offered here")]
    Features(u64),
    #[error("queue {0} is configured too early")]
    EarlyQueue(usize),
    #[error("driver status {0:#x} contradicts whether the device is in use")]
    Active(u32),
    #[error("queue {0} is broken and the device needs no reset")]
    Broken(usize),
    #[error("queue {index}: {error}")]
    Setup { index: usize, error: QueueSetupError },
    #[error("queue {index}: {error}")]
    Position { index: usize, error: PositionError },
    #[error("the state of the device is invalid")]
    Device,
    #[error("cannot activate the device: {0}")]
    Activate(String),
}

impl MmioTransport {
    /// Saves the state of the transport, its queues and its device. No vCPU runs. The device is
    /// not served from now on, until [`restore`](Self::restore) is called with the state.
    ///
    /// # Errors
    /// The device cannot be saved, and goes on as before; or its event loop has ended.
    pub fn save(&self) -> Result<TransportState, SaveError> {
        let name = || self.identity.name.clone();
        let mut registers = self.lock();
        let is_active = !registers.positions.is_empty();
        if is_active && !self.identity.kind.savable {
            return Err(SaveError::Type(name()));
        }
        for (event_loop, worker) in std::mem::take(&mut registers.workers) {
            let event_loop = &self.event_loops[event_loop];
            let mut worker = event_loop.take(worker).map_err(|_| SaveError::Stopped(name()))?;
            // On its own thread, which may make the system calls of the device.
            event_loop.run(move || worker.drain()).map_err(|_| SaveError::Stopped(name()))?;
        }
        let position = |slot: std::sync::Arc<std::sync::OnceLock<_>>| slot.get().cloned();
        let positions: Option<Vec<_>> = std::mem::take(&mut registers.positions).into_iter().map(position).collect();
        let positions = positions.ok_or_else(|| SaveError::Stopped(name()))?;
        let active = is_active.then(|| Active { positions, device: registers.device.save() });
        Ok(TransportState {
            device_id: self.identity.kind.device_id,
            status: registers.status,
            needs_reset: self.interrupt.is_reset_needed(),
            interrupt_status: self.interrupt.status(),
            config_generation: self.interrupt.config_generation(),
            device_features_select: registers.device_features_select,
            driver_features_select: registers.driver_features_select,
            driver_features: registers.driver_features,
            has_features_beyond: registers.has_features_beyond,
            queue_select: registers.queue_select,
            queues: registers.queues.clone(),
            active,
        })
    }

    /// Sets the state in a new transport, or in the one that was just saved, and activates the
    /// device if it was in use. No vCPU runs, and guest memory has its contents.
    ///
    /// # Errors
    /// The state is of another device or is impossible, and nothing was changed; or the host cannot
    /// activate the device.
    pub fn restore(&self, state: &TransportState) -> Result<(), RestoreError> {
        self.try_restore(state).map_err(|reason| RestoreError { device: self.identity.name.clone(), reason })
    }

    fn try_restore(&self, state: &TransportState) -> Result<(), Reason> {
        self.check(state)?;
        let mut registers = self.lock();
        assert!(registers.workers.is_empty(), "a state is set in a transport whose device is not in use");
        if let Some(active) = &state.active {
            registers.device.restore(&active.device).map_err(|InvalidDeviceState| Reason::Device)?;
        }
        registers.status = state.status;
        registers.device_features_select = state.device_features_select;
        registers.driver_features_select = state.driver_features_select;
        registers.driver_features = state.driver_features;
        registers.has_features_beyond = state.has_features_beyond;
        registers.queue_select = state.queue_select;
        registers.queues.clone_from(&state.queues);
        // Before the workers, which may raise it.
        self.interrupt.restore(state.interrupt_status, state.needs_reset, state.config_generation);
        if let Some(active) = &state.active {
            self.try_activate(&mut registers, Some(&active.positions)).map_err(|failure| match failure {
                ActivationFailure::Driver(error) | ActivationFailure::Host(error) => Reason::Activate(error),
            })?;
            self.claimed.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Checks everything but the device's own state. Most bad states would harm the guest only;
    /// they are rejected because a state that no driver can have reached is damaged.
    fn check(&self, state: &TransportState) -> Result<(), Reason> {
        if state.device_id != self.identity.kind.device_id {
            return Err(Reason::DeviceType(state.device_id));
        }
        let sizes = state.queues.iter().map(|queue| queue.max_size);
        if !sizes.eq(self.identity.queue_sizes.iter().copied()) {
            return Err(Reason::Queues);
        }
        let has = |bit: u32| state.status & bit != 0;
        if !is_reachable(state.status) {
            return Err(Reason::Status(state.status));
        }
        if state.interrupt_status & !(VIRTIO_MMIO_INT_VRING | VIRTIO_MMIO_INT_CONFIG) != 0 {
            return Err(Reason::InterruptStatus(state.interrupt_status));
        }
        let untouched = state.driver_features == 0 && !state.has_features_beyond;
        let acceptable =
            super::are_acceptable(state.driver_features, state.has_features_beyond, self.offered_features());
        if has(FEATURES_OK) && !acceptable || !has(DRIVER) && !untouched {
            return Err(Reason::Features(state.driver_features));
        }
        if !has(FEATURES_OK)
            && let Some(index) = state.queues.iter().position(|queue| *queue != QueueSetup::new(queue.max_size))
        {
            return Err(Reason::EarlyQueue(index));
        }
        // A device that could not be activated is not in use, and needs a reset.
        let Some(active) = &state.active else {
            let possible = !has(DRIVER_OK) || state.needs_reset;
            return if possible { Ok(()) } else { Err(Reason::Active(state.status)) };
        };
        if !has(DRIVER_OK) {
            return Err(Reason::Active(state.status));
        }
        self.check_queues(state, &active.positions)
    }

    fn check_queues(&self, state: &TransportState, positions: &[QueuePosition]) -> Result<(), Reason> {
        if positions.len() != state.queues.len() {
            return Err(Reason::Queues);
        }
        let event_idx = state.driver_features & 1 << VIRTIO_RING_F_EVENT_IDX != 0;
        for (index, (setup, position)) in state.queues.iter().zip(positions).enumerate() {
            let ring = setup.build(&self.memory, event_idx).map_err(|error| Reason::Setup { index, error })?;
            position.check(&ring).map_err(|error| Reason::Position { index, error })?;
            if position.is_broken && !state.needs_reset {
                return Err(Reason::Broken(index));
            }
        }
        Ok(())
    }
}

/// The state of a device besides its queues is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidDeviceState;

#[cfg(test)]
#[path = "saved_tests.rs"]
mod tests;
