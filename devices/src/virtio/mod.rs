// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Virtio devices (version 1, split rings) behind the MMIO transport. Virtio 1.3.
//!
//! A device lives twice: as a [`VirtioDevice`], held by its transport and asked by vCPU threads, and, once the driver is
//! ready, as a [`Worker`] on an event loop, which owns the queues. Between the two there is no lock: what both need is
//! an atomic. How to write one: read [`rng`], whole in one file.

pub mod block;
pub mod chain;
pub mod console;
mod guest_io;
pub mod mmio;
pub mod net;
pub mod queue;
mod queue_setup;
pub mod rng;
mod status;

#[cfg(test)]
mod hostile_tests;

use crate::GuestMemory;
use crate::event_loop::Source;
use crate::interrupt::Interrupt;
use queue::Virtqueue;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use vmm_sys_util::epoll::EventSet;

/// What the transport and the queues offer for every device.
pub const TRANSPORT_FEATURES: u64 =
    1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC;

/// What is fixed about a device.
#[derive(Clone, Debug)]
pub struct DeviceIdentity {
    /// Number of the device type (virtio 1.3, section 5).
    pub device_id: u32,
    /// Name in messages, e.g. `rng` or `disk root`.
    pub name: String,
    /// What the guest's kernel needs to drive it, e.g. `CONFIG_VIRTIO_BLK`.
    pub kernel_option: &'static str,
    /// Offered features of the device type; [`TRANSPORT_FEATURES`] come on top.
    pub features: u64,
    /// Largest size of each queue: powers of two, at most 1024.
    pub queue_sizes: Vec<u16>,
}

/// What the driver made available when it was ready. Moved into the worker.
#[derive(Debug)]
pub struct Activation {
    /// Features that both sides have.
    pub features: u64,
    /// The guest's memory.
    pub memory: GuestMemory,
    /// One for each of [`DeviceIdentity::queue_sizes`]. A queue that the driver left alone is here too, always empty.
    pub queues: Vec<Virtqueue>,
    /// The device's interrupt; each queue holds a clone.
    pub interrupt: Interrupt,
}

impl Activation {
    /// Whether both sides have the feature with this bit number.
    #[must_use]
    pub fn has_feature(&self, bit: u32) -> bool {
        self.features & 1 << bit != 0
    }
}

/// The host could not make a worker (out of descriptors, a backend that is gone). The guest sees needs-reset.
#[derive(Debug, thiserror::Error)]
#[error("{step}")]
pub struct ActivateError {
    /// What was tried.
    pub step: &'static str,
    /// Why it failed.
    #[source]
    pub source: std::io::Error,
}

/// A virtio device before, and besides, its [`Worker`]. Called by vCPU threads under the transport's lock, so no method
/// may block.
pub trait VirtioDevice: Send {
    /// What is fixed about it.
    fn identity(&self) -> &DeviceIdentity;

    /// Fills `data` from the configuration space at `offset`. `data` is all ones before; what lies past the end stays so.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Makes the worker. Called again after each reset by the driver, when the worker before has been dropped.
    ///
    /// # Errors
    /// The host cannot; the guest is told needs-reset.
    fn activate(&mut self, activation: Activation) -> Result<Box<dyn Worker>, ActivateError>;
}

/// A device after activation, owned by one event loop and called on its thread only. `process` may be called without any
/// loop too: tests and fuzz targets do.
pub trait Worker: Send {
    /// What it waits for. Asked once, before `start`; closed only when the worker is dropped.
    fn sources(&self) -> Vec<Source>;

    /// The first call: serve what the driver offered before its kicks were listened to.
    fn start(&mut self);

    /// One of the sources, by its token, is ready.
    fn process(&mut self, token: u32, ready: EventSet);

    /// The last call at an orderly stop, when no vCPU runs any more: finish what the guest was promised. Not called when
    /// the driver resets the device.
    fn retire(&mut self) {}
}

/// Copies what `config` has at `offset` to the start of `data`; bytes past its end are left alone.
pub(crate) fn read_config_bytes(config: &[u8], offset: u64, data: &mut [u8]) {
    let Some(rest) = usize::try_from(offset).ok().and_then(|offset| config.get(offset..)) else { return };
    let length = rest.len().min(data.len());
    data[..length].copy_from_slice(&rest[..length]);
}
