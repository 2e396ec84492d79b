// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The network device before activation: identity and configuration space. Built on `main`, then
//! called by vCPU threads.

use super::super::{ActivateError, Activation, DeviceIdentity, DeviceKind, VirtioDevice, Worker, read_config_bytes};
use super::tap::Tap;
use super::worker::{NetCounters, NetWorker};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_MAC,
    VIRTIO_NET_F_STATUS, VIRTIO_NET_S_LINK_UP,
};

/// The network device as a type.
pub const KIND: DeviceKind = DeviceKind {
    device_id: VIRTIO_ID_NET,
    kernel_option: "CONFIG_VIRTIO_NET",
    kernel_module: "virtio_net",
    optional: false,
    counters: Some("nets"),
};

const QUEUE_SIZE: u16 = 256;

/// A network interface of the machine.
#[derive(Debug)]
pub struct NetConfig {
    /// The host's end.
    pub tap: Tap,
    /// Address of the guest's end.
    pub mac: [u8; 6],
}

/// The network device.
#[derive(Debug)]
pub struct Net {
    identity: DeviceIdentity,
    mac: [u8; 6],
    tap: Arc<Tap>,
    /// Cleared by the worker when the tap is gone.
    link_up: Arc<AtomicBool>,
    counters: Arc<NetCounters>,
}

impl Net {
    /// A network device on an attached tap.
    #[must_use]
    pub fn new(config: NetConfig) -> Self {
        let NetConfig { tap, mac } = config;
        let mut features = 1 << VIRTIO_NET_F_MAC | 1 << VIRTIO_NET_F_STATUS;
        features |= 1 << VIRTIO_NET_F_CSUM | 1 << VIRTIO_NET_F_HOST_TSO4 | 1 << VIRTIO_NET_F_HOST_TSO6;
        if tap.leaves_checksums {
            features |= 1 << VIRTIO_NET_F_GUEST_CSUM;
        }
        let counters = Arc::<NetCounters>::default();
        let identity = DeviceIdentity {
            kind: &KIND,
            name: "net".to_owned(),
            features,
            queue_sizes: vec![QUEUE_SIZE; 2],
            counters: Some(Arc::clone(&counters) as _),
        };
        let link_up = Arc::new(AtomicBool::new(true));
        Self { identity, mac, tap: Arc::new(tap), link_up, counters }
    }

    /// Counters that stay up to date.
    #[must_use]
    pub fn counters(&self) -> Arc<NetCounters> {
        Arc::clone(&self.counters)
    }
}

impl VirtioDevice for Net {
    fn identity(&self) -> &DeviceIdentity {
        &self.identity
    }

    /// The first fields of `struct virtio_net_config`: address and status.
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let status = if self.link_up.load(Ordering::SeqCst) { VIRTIO_NET_S_LINK_UP as u16 } else { 0 };
        let mut config = [0; 8];
        config[..6].copy_from_slice(&self.mac);
        config[6..].copy_from_slice(&status.to_le_bytes());
        read_config_bytes(&config, offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<Vec<Box<dyn Worker>>, ActivateError> {
        if self.tap.leaves_checksums {
            let leave = activation.has_feature(VIRTIO_NET_F_GUEST_CSUM);
            let step = "cannot set the tap's offloads";
            self.tap.leave_checksums(leave).map_err(|source| ActivateError { step, source })?;
        }
        let (tap, link_up, counters) = (&self.tap, &self.link_up, &self.counters);
        let worker = NetWorker::new(activation, Arc::clone(tap), Arc::clone(link_up), Arc::clone(counters));
        Ok(vec![Box::new(worker)])
    }
}
