// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The entropy device, and the example of how a device is written here: identity, activation, worker, in this order.
//! The worker runs on the `io` event loop. Virtio 1.3, 5.4.
//!
//! | queue | direction | carries |
//! |---|---|---|
//! | 0 | to the driver | buffers to fill with random bytes |
//!
//! Not supported: the leak queues of virtio 1.3.

use super::chain::Chain;
use super::queue::{Served, Virtqueue};
use super::{ActivateError, Activation, DeviceIdentity, VirtioDevice, Worker};
use crate::GuestMemory;
use crate::event_loop::Source;
use rustix::rand::{GetRandomFlags, getrandom};
use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;
use vmm_sys_util::epoll::EventSet;

/// Random bytes for one request. A driver that wants more asks again; its buffer may have any size.
const REQUEST_LIMIT: usize = 4096;

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
        let identity = DeviceIdentity {
            device_id: VIRTIO_ID_RNG,
            name: "rng".to_owned(),
            kernel_option: "CONFIG_HW_RANDOM_VIRTIO",
            features: 0,
            queue_sizes: vec![16],
        };
        Self { identity }
    }
}

impl VirtioDevice for Rng {
    fn identity(&self) -> &DeviceIdentity {
        &self.identity
    }

    fn read_config(&self, _: u64, _: &mut [u8]) {}

    fn activate(&mut self, activation: Activation) -> Result<Box<dyn Worker>, ActivateError> {
        let Activation { memory, mut queues, .. } = activation;
        Ok(Box::new(RngWorker { memory, requests: queues.remove(0) }))
    }
}

/// Fills the driver's buffers.
struct RngWorker {
    memory: GuestMemory,
    requests: Virtqueue,
}

impl Worker for RngWorker {
    fn sources(&self) -> Vec<Source> {
        vec![Source::kick(self.requests.kick(), 0)]
    }

    fn start(&mut self) {
        self.requests.serve(&self.memory, fill);
    }

    fn process(&mut self, _: u32, _: EventSet) {
        self.start();
    }
}

fn fill(chain: &mut Chain<'_>) -> Served {
    let mut random = [0; REQUEST_LIMIT];
    let wanted = chain.writable.remaining().min(REQUEST_LIMIT);
    // Requests of up to 256 bytes are never short; an error leaves the driver with none, which it may ask for again.
    let length = getrandom(&mut random[..wanted], GetRandomFlags::empty()).unwrap_or(0);
    let written = chain.writable.write_all(&random[..length]).map_or(0, |()| length);
    Served::Done(written as u32)
}

#[cfg(test)]
#[path = "rng_tests.rs"]
mod tests;
