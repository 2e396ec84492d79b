// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Virtio devices (version 1, split rings) behind the MMIO transport. Virtio 1.3.
//!
//! A device has two parts. The [`VirtioDevice`] is held by its transport and called by vCPU
//! threads. Once the driver is ready it makes one or more [`Worker`]s, which own the queues and run
//! on event loops. They share no lock; what both need is atomic. To write one, start from [`rng`].

/// Declares the counters of a device type and their snapshot. Relaxed: they are for statistics.
macro_rules! device_counters {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: std::sync::atomic::AtomicU64,)*
        }

        impl $crate::virtio::DeviceCounters for $name {
            fn snapshot(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($field), self.$field.load(std::sync::atomic::Ordering::Relaxed)),)*]
            }
        }
    };
}

pub mod block;
pub mod chain;
pub mod console;
pub mod fs;
mod guest_io;
pub mod mmio;
pub mod net;
pub mod queue;
mod queue_position;
mod queue_setup;
pub mod rng;
mod status;
pub mod vsock;

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod resource_tests;

use crate::GuestMemory;
use crate::event_loop::Source;
use crate::interrupt::Interrupt;
use crate::turn::Turn;
use mmio::InvalidDeviceState;
use queue::Virtqueue;
use std::sync::Arc;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use vmm_sys_util::epoll::EventSet;

/// Features of the transport and the queues, offered for every device.
pub const TRANSPORT_FEATURES: u64 =
    1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC;

/// A device type: what is known of it besides its code. The machine's hints, kernel modules and
/// status documents are made from this, so that a new device needs no change there.
#[derive(Debug, PartialEq, Eq)]
pub struct DeviceKind {
    /// Number of the device type (virtio 1.3, section 5).
    pub device_id: u32,
    /// Kernel option of the driver, e.g. `CONFIG_VIRTIO_BLK`.
    pub kernel_option: &'static str,
    /// Kernel module of the driver, e.g. `virtio_blk`. A kernel with the driver built in contains
    /// the name as a string.
    pub kernel_module: &'static str,
    /// A guest works without a driver for this device.
    pub optional: bool,
    /// All state between activation and reset is in the queues and in what [`VirtioDevice::save`]
    /// returns, so that a device in use can be saved.
    pub savable: bool,
    /// Name of the list in status documents that has an entry for each device of this type, e.g.
    /// `disks`.
    pub counters: Option<&'static str>,
}

/// Every device type.
pub const KINDS: [&DeviceKind; 6] = [&console::KIND, &block::KIND, &net::KIND, &rng::KIND, &vsock::KIND, &fs::KIND];

/// Counters of one device. They only grow, and are read from any thread.
pub trait DeviceCounters: std::fmt::Debug + Send + Sync {
    /// Names, as in status documents, and values at this moment.
    fn snapshot(&self) -> Vec<(&'static str, u64)>;
}

/// What is fixed about one device.
#[derive(Clone, Debug)]
pub struct DeviceIdentity {
    /// The device type and its driver.
    pub kind: &'static DeviceKind,
    /// Name in messages, e.g. `rng` or `disk root`.
    pub name: String,
    /// Offered features of the device type, without [`TRANSPORT_FEATURES`].
    pub features: u64,
    /// Largest size of each queue: powers of two, at most 1024.
    pub queue_sizes: Vec<u16>,
    /// Listed in status documents under [`DeviceKind::counters`].
    pub counters: Option<Arc<dyn DeviceCounters>>,
}

/// What the driver made available when it was ready. Moved into the workers.
#[derive(Debug)]
pub struct Activation {
    /// Features that both sides have.
    pub features: u64,
    /// The guest's memory.
    pub memory: GuestMemory,
    /// One for each of [`DeviceIdentity::queue_sizes`]. A queue that the driver did not configure
    /// stays empty.
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

/// The host could not make a worker (a backend that is gone). The machine ends with a host error.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub struct ActivateError {
    /// What was tried.
    pub step: &'static str,
    /// Error of the operating system.
    pub source: std::io::Error,
}

/// A virtio device before, and besides, its [`Worker`]s. Called by vCPU threads under the
/// transport's lock, so no method may block. Descriptors are made when the device is built:
/// activation makes none.
pub trait VirtioDevice: Send {
    /// What is fixed about it.
    fn identity(&self) -> &DeviceIdentity;

    /// Fills `data` from the configuration space at `offset`. `data` is all ones before; bytes past
    /// the end of the space stay so.
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Stores `data`, of any width, to the configuration space at `offset`. The driver may do this
    /// in every state, also before features are accepted. Most devices have nothing to write.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    /// Makes the workers. Called again after each reset by the driver, when the workers before have
    /// been dropped. The transport puts each on the next of its event loops.
    ///
    /// # Errors
    /// The host cannot; the machine ends.
    fn activate(&mut self, activation: Activation) -> Result<Vec<Box<dyn Worker>>, ActivateError>;

    /// The state that the workers had besides their queues, and that the driver relies on. They
    /// have been drained and dropped. Most devices have none.
    fn save(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Sets a saved state for the activation that follows. It is untrusted.
    ///
    /// # Errors
    /// The state is invalid.
    fn restore(&mut self, state: &[u8]) -> Result<(), InvalidDeviceState> {
        if state.is_empty() { Ok(()) } else { Err(InvalidDeviceState) }
    }
}

/// A device, or some of its queues, after activation. Owned by one event loop and called on its
/// thread only. `process` needs no loop: tests and fuzz targets call it, too.
pub trait Worker: Send {
    /// What it waits for. Called once, before `start`. Each descriptor stays open until the worker
    /// is dropped.
    fn sources(&self) -> Vec<Source>;

    /// The first call: serves what the driver offered before its notifications had a listener.
    fn start(&mut self, turn: &mut Turn<'_>);

    /// One of the sources, by its token, is ready. Returns when `turn` is over; what is left is
    /// rescheduled.
    fn process(&mut self, token: u32, ready: EventSet, turn: &mut Turn<'_>);

    /// No vCPU runs: passes on what the guest has handed over, as far as it need not wait, and
    /// makes durable what was acknowledged. Called at an orderly stop, not when the driver resets
    /// the device. A drained worker can be put on a loop again; chains that it has not finished
    /// stay in flight.
    fn drain(&mut self) {}
}

/// Copies what `config` has at `offset` to the start of `data`; bytes past its end are left alone.
pub(crate) fn read_config_bytes(config: &[u8], offset: u64, data: &mut [u8]) {
    let Some(rest) = usize::try_from(offset).ok().and_then(|offset| config.get(offset..)) else { return };
    let length = rest.len().min(data.len());
    data[..length].copy_from_slice(&rest[..length]);
}
