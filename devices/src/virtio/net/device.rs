// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The network device before activation: identity and configuration space. Built on `main`, then
//! called by vCPU threads.

use super::super::{
    ActivateError, Activation, DeviceIdentity, DeviceKind, InvalidDeviceState, VirtioDevice, Worker, read_config_bytes,
};
use super::backend::Backend;
use super::host_side::{HostSide, Kept};
use super::internal_host::{HostEnd, InternalHost};
use super::link::{Link, NetHandle};
use super::packet::Rules;
use super::pair::Pair;
use super::saved::Commanded;
use super::worker::NetWorker;
use crate::rate_limit::{Limiter, RateLimits};
use crate::slot::Slot;
use std::io::ErrorKind;
use std::sync::Arc;
use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CTRL_MAC_ADDR, VIRTIO_NET_F_CTRL_RX, VIRTIO_NET_F_CTRL_RX_EXTRA, VIRTIO_NET_F_CTRL_VLAN,
    VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MQ, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU,
    VIRTIO_NET_F_STATUS, VIRTIO_NET_S_LINK_UP,
};
use zerocopy::little_endian::U16;
use zerocopy::{Immutable, IntoBytes};

/// The network device as a type.
pub const KIND: DeviceKind = DeviceKind {
    device_id: VIRTIO_ID_NET,
    kernel_option: "CONFIG_VIRTIO_NET",
    kernel_module: "virtio_net",
    optional: false,
    savable: true,
    counters: Some("nets"),
};

const QUEUE_SIZE: u16 = 256;
/// Linux sends one command at a time.
const CONTROL_QUEUE_SIZE: u16 = 64;
/// What the control queue is for, whatever the backend is.
const CONTROL_FEATURES: u64 = 1 << VIRTIO_NET_F_CTRL_VQ
    | 1 << VIRTIO_NET_F_CTRL_RX
    | 1 << VIRTIO_NET_F_CTRL_RX_EXTRA
    | 1 << VIRTIO_NET_F_CTRL_VLAN
    | 1 << VIRTIO_NET_F_CTRL_MAC_ADDR;

/// A network interface of the machine.
#[derive(Debug)]
pub struct NetConfig {
    /// Of the interface in the guest, e.g. `eth0`: for messages.
    pub name: String,
    /// The host's end.
    pub backend: Backend,
    /// A service inside of this process on the same link.
    pub internal_host: Option<Box<dyn InternalHost>>,
    /// Address of the guest's end.
    pub mac: [u8; 6],
    /// Largest IP packet, if the guest is to be informed of it. Larger frames are dropped then.
    pub mtu: Option<u16>,
    /// What may pass; can be changed later.
    pub limits: RateLimits,
}

/// The network device.
#[derive(Debug)]
pub struct Net {
    identity: DeviceIdentity,
    mtu: Option<u16>,
    host_end: Slot<HostEnd>,
    limiter: Slot<Limiter>,
    link: Arc<Link>,
    /// What the last driver had set.
    commanded: Slot<Commanded>,
    /// The next activation goes on with it.
    continues: bool,
}

impl Net {
    /// A network device on its backend.
    ///
    /// # Errors
    /// The host has no descriptor left.
    pub fn open(config: NetConfig) -> std::io::Result<Self> {
        let NetConfig { name, backend, internal_host, mac, mtu, limits } = config;
        let limiter = Limiter::new(limits)?;
        let host_end = HostEnd::new(backend, internal_host)?;
        let link = Arc::new(Link::new(host_end.is_connected().unwrap_or(true), mac, limiter.control())?);
        let mut features = host_end.features() | CONTROL_FEATURES;
        features |= 1 << VIRTIO_NET_F_MAC | 1 << VIRTIO_NET_F_STATUS | 1 << VIRTIO_NET_F_MRG_RXBUF;
        let pairs = host_end.queues();
        features |= u64::from(pairs > 1) << VIRTIO_NET_F_MQ;
        let mut queue_sizes = vec![QUEUE_SIZE; 2 * pairs];
        queue_sizes.push(CONTROL_QUEUE_SIZE);
        features |= mtu.map_or(0, |_| 1 << VIRTIO_NET_F_MTU);
        let identity = DeviceIdentity {
            kind: &KIND,
            name,
            features,
            queue_sizes,
            counters: Some(Arc::clone(&link.counters) as _),
        };
        Ok(Self {
            identity,
            mtu,
            host_end: Slot::new(host_end),
            limiter: Slot::new(limiter),
            link,
            commanded: Slot::new(Commanded::default()),
            continues: false,
        })
    }

    fn max_pairs(&self) -> u16 {
        // A tap has no more than MAX_QUEUE_PAIRS queues.
        (self.identity.queue_sizes.len() / 2) as u16
    }

    /// The host's access to this device, for as long as it likes.
    #[must_use]
    pub fn handle(&self) -> NetHandle {
        NetHandle(Arc::clone(&self.link))
    }
}

impl VirtioDevice for Net {
    fn identity(&self) -> &DeviceIdentity {
        &self.identity
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let status = if self.link.is_up() { VIRTIO_NET_S_LINK_UP as u16 } else { 0 };
        let config = ConfigSpace {
            mac: self.link.address(),
            status: status.into(),
            max_queue_pairs: self.max_pairs().into(),
            mtu: self.mtu.unwrap_or_default().into(),
        };
        read_config_bytes(config.as_bytes(), offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<Vec<Box<dyn Worker>>, ActivateError> {
        let failed = |source| ActivateError { step: "cannot set the offloads of the host's interface", source };
        // The worker before was dropped, and has put it back.
        let (Some(mut host_end), Some(limiter), Some(commanded)) =
            (self.host_end.take(), self.limiter.take(), self.commanded.take())
        else {
            return Err(failed(ErrorKind::ResourceBusy.into()));
        };
        let continued = std::mem::take(&mut self.continues).then(|| commanded.clone());
        host_end.forget();
        host_end.set_features(activation.features).map_err(failed)?;
        let mtu = self.mtu.filter(|_| activation.has_feature(VIRTIO_NET_F_MTU));
        let rules = Rules::new(activation.features, mtu);
        let has_pairs = activation.has_feature(VIRTIO_NET_F_MQ) && activation.has_feature(VIRTIO_NET_F_CTRL_VQ);
        let max_pairs = if has_pairs { self.max_pairs() } else { 1 };
        let has_control = activation.has_feature(VIRTIO_NET_F_CTRL_VQ);
        let Activation { queues, interrupt, .. } = activation;
        let mut queues = queues.into_iter();
        let mut pair = || Some(Pair::new(queues.next()?, queues.next()?));
        let pairs = (0..max_pairs).map_while(|_| pair()).collect();
        // Behind the pairs that the driver knows (5.1.2).
        let control = queues.next().filter(|_| has_control);
        let (name, link) = (self.identity.name.clone(), Arc::clone(&self.link));
        let kept = Kept { host_end, limiter, commanded };
        let mut host = HostSide::new(name, kept, link, rules, max_pairs, interrupt.clone());
        if let Some(continued) = continued {
            host.resume(&continued).map_err(failed)?;
        }
        Ok(vec![Box::new(NetWorker::new(pairs, control, interrupt, host))])
    }

    fn save(&self) -> Vec<u8> {
        self.commanded.take().expect("the worker was dropped").as_bytes().to_vec()
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), InvalidDeviceState> {
        *self.commanded.take().expect("there is no worker") = Commanded::from_bytes(state)?;
        self.continues = true;
        Ok(())
    }
}

/// The first fields of `struct virtio_net_config`.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct ConfigSpace {
    mac: [u8; 6],
    status: U16,
    max_queue_pairs: U16,
    mtu: U16,
}
