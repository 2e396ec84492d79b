// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The socket device before activation: identity and configuration space. Built on `main`, then
//! called by vCPU threads.

use super::super::{ActivateError, Activation, DeviceIdentity, DeviceKind, VirtioDevice, Worker, read_config_bytes};
use super::host::{Host, HostSockets};
use super::table::{Table, TimeLimits};
use super::worker::VsockWorker;
use crate::slot::Slot;
use std::io::ErrorKind;
use std::sync::Arc;
use virtio_bindings::virtio_ids::VIRTIO_ID_VSOCK;

/// The socket device as a type.
pub const KIND: DeviceKind = DeviceKind {
    device_id: VIRTIO_ID_VSOCK,
    kernel_option: "CONFIG_VIRTIO_VSOCKETS",
    kernel_module: "vmw_vsock_virtio_transport",
    optional: false,
    savable: false,
    counters: Some("vsocks"),
};

/// Stream sockets. Drivers that know no other kind need not accept it.
const F_STREAM: u64 = 1 << 0;
/// To the driver, from the driver, events. Linux fills the first and the last with buffers.
const QUEUE_SIZES: [u16; 3] = [128, 128, 8];

/// What a socket device is made of.
#[derive(Debug)]
pub struct VsockConfig {
    /// CID of the guest: 3 to 2^32 - 2.
    pub guest_cid: u32,
    /// The host's end.
    pub sockets: HostSockets,
}

device_counters! {
    /// What went through a socket device since the start, seen from the guest. Monotonic, relaxed: for
    /// statistics.
    VsockCounters {
        /// Bytes of data that the guest received.
        rx_bytes,
        /// Packets that the guest received.
        rx_packets,
        /// Bytes of data that the guest sent.
        tx_bytes,
        /// Packets that the guest sent.
        tx_packets,
        /// Packets of the guest without a valid header or with other addresses.
        tx_dropped,
        /// Connections that both sides accepted.
        connections,
        /// Connections that one side did not accept, or that were too many.
        refused,
    }
}

/// Streams between guest and host (virtio 1.3, 5.10), before activation.
#[derive(Debug)]
pub struct Vsock {
    identity: DeviceIdentity,
    guest_cid: u64,
    host: Slot<Host>,
    counters: Arc<VsockCounters>,
}

impl Vsock {
    /// A socket device on the sockets of the host.
    ///
    /// # Errors
    /// The host has no descriptor left.
    pub fn open(config: VsockConfig) -> std::io::Result<Self> {
        let counters = Arc::<VsockCounters>::default();
        let identity = DeviceIdentity {
            kind: &KIND,
            name: "vsock".to_owned(),
            features: F_STREAM,
            queue_sizes: QUEUE_SIZES.to_vec(),
            counters: Some(Arc::clone(&counters) as _),
        };
        let host = Slot::new(Host::new(config.sockets)?);
        Ok(Self { identity, guest_cid: config.guest_cid.into(), host, counters })
    }
}

impl VirtioDevice for Vsock {
    fn identity(&self) -> &DeviceIdentity {
        &self.identity
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(&self.guest_cid.to_le_bytes(), offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<Vec<Box<dyn Worker>>, ActivateError> {
        // The worker before was dropped, and has put it back. Its connections are closed.
        let busy = || ActivateError { step: "cannot use the host's sockets", source: ErrorKind::ResourceBusy.into() };
        let host = self.host.take().ok_or_else(busy)?;
        let table = Table::new(self.guest_cid, TimeLimits::default(), host, Arc::clone(&self.counters));
        Ok(vec![Box::new(VsockWorker::new(activation, table))])
    }
}
