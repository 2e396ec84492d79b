// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The entropy device, and the example of how a device is written here: kind, identity, activation,
//! worker, in this order. The worker runs on the `io` event loop. Virtio 1.3, 5.4.
//!
//! | queue | direction | carries |
//! |---|---|---|
//! | 0 | to the driver | buffers to fill with random bytes |
//!
//! Not supported: the leak queues of virtio 1.3.

use super::chain::Chain;
use super::queue::{Served, Virtqueue};
use super::{ActivateError, Activation, DeviceIdentity, DeviceKind, VirtioDevice, Worker};
use crate::event_loop::Source;
use crate::turn::Turn;
use rustix::rand::{GetRandomFlags, getrandom};
use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;
use vmm_sys_util::epoll::EventSet;

/// The entropy device as a type.
pub const KIND: DeviceKind = DeviceKind {
    device_id: VIRTIO_ID_RNG,
    kernel_option: "CONFIG_HW_RANDOM_VIRTIO",
    kernel_module: "virtio_rng",
    optional: true,
    savable: true,
    counters: None,
};

/// Random bytes for one request. A driver that wants more asks again; its buffer may have any size.
const MAX_REQUEST_BYTES: usize = 4096;

/// The entropy device.
#[derive(Debug)]
pub struct Rng {
    identity: DeviceIdentity,
}

impl Default for Rng {
    fn default() -> Self {
        Self::new()
    }
}

impl Rng {
    /// An entropy device over the host's `getrandom`.
    #[must_use]
    pub fn new() -> Self {
        let identity =
            DeviceIdentity { kind: &KIND, name: "rng".to_owned(), features: 0, queue_sizes: vec![16], counters: None };
        Self { identity }
    }
}

impl VirtioDevice for Rng {
    fn identity(&self) -> &DeviceIdentity {
        &self.identity
    }

    fn read_config(&self, _: u64, _: &mut [u8]) {}

    fn activate(&mut self, mut activation: Activation) -> Result<Vec<Box<dyn Worker>>, ActivateError> {
        Ok(vec![Box::new(RngWorker { requests: activation.queues.remove(0) })])
    }
}

/// Fills the driver's buffers.
struct RngWorker {
    requests: Virtqueue,
}

impl Worker for RngWorker {
    fn sources(&self) -> Vec<Source> {
        vec![Source::event(self.requests.queue_event(), 0)]
    }

    fn start(&mut self, turn: &mut Turn<'_>) {
        self.requests.serve(turn, fill);
    }

    fn process(&mut self, _: u32, _: EventSet, turn: &mut Turn<'_>) {
        self.start(turn);
    }
}

fn fill(chain: &mut Chain<'_>) -> Served {
    let mut random = [0; MAX_REQUEST_BYTES];
    let wanted = chain.writable.remaining().min(MAX_REQUEST_BYTES);
    // Requests of up to 256 bytes are never short. After an error the driver gets no bytes, and may
    // ask again.
    let length = getrandom(&mut random[..wanted], GetRandomFlags::empty()).unwrap_or(0);
    let written = chain.writable.write_all(&random[..length]).map_or(0, |()| length);
    Served::Done(written as u32)
}

#[cfg(test)]
#[path = "rng_tests.rs"]
mod tests;
