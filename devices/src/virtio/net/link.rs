// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The link of an interface: up while the backend can carry frames and the host has not taken it
//! down. Shared by the device (vCPU threads), its worker (event loop of the interface) and the
//! host; all of it is atomic.

use super::filter::Address;
use super::worker::NetCounters;
use crate::rate_limit::RateControl;
use std::io::Result;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use vmm_sys_util::eventfd::EventFd;

/// The host's access to a network device.
#[derive(Clone, Debug)]
pub struct NetHandle(pub(super) Arc<Link>);

impl NetHandle {
    /// Whether the guest sees a link.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.0.is_up()
    }

    /// Whether the backend carries frames: a tap or an interface that exists, a peer that is
    /// connected.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.0.is_connected()
    }

    /// Takes the link down or up again, as by pulling its cable. The driver is informed.
    pub fn set_link(&self, up: bool) {
        self.0.is_enabled.store(up, Ordering::SeqCst);
        let _ = self.0.for_worker.write(1);
    }

    /// Signalled when [`is_connected`](Self::is_connected) has changed. Non-blocking.
    #[must_use]
    pub fn event(&self) -> &EventFd {
        &self.0.for_host
    }

    /// Sets what may pass.
    #[must_use]
    pub fn rates(&self) -> RateControl {
        self.0.rates.clone()
    }

    /// Counters that stay up to date.
    #[must_use]
    pub fn counters(&self) -> Arc<NetCounters> {
        Arc::clone(&self.0.counters)
    }
}

#[derive(Debug)]
pub(super) struct Link {
    is_connected: AtomicBool,
    is_enabled: AtomicBool,
    /// Of the guest's end, as the driver has set it.
    address: AtomicU64,
    pub(super) for_worker: EventFd,
    for_host: EventFd,
    pub(super) counters: Arc<NetCounters>,
    rates: RateControl,
}

impl Link {
    pub(super) fn new(is_connected: bool, address: Address, rates: RateControl) -> Result<Self> {
        let event = || EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
        Ok(Self {
            is_connected: AtomicBool::new(is_connected),
            is_enabled: AtomicBool::new(true),
            address: AtomicU64::new(number(address)),
            for_worker: event()?,
            for_host: event()?,
            counters: Arc::default(),
            rates,
        })
    }

    pub(super) fn is_up(&self) -> bool {
        self.is_connected() && self.is_enabled()
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.is_enabled.load(Ordering::SeqCst)
    }

    pub(super) fn is_connected(&self) -> bool {
        self.is_connected.load(Ordering::SeqCst)
    }

    /// The address in the configuration space.
    pub(super) fn address(&self) -> Address {
        let [.., a, b, c, d, e, f] = self.address.load(Ordering::SeqCst).to_be_bytes();
        [a, b, c, d, e, f]
    }

    pub(super) fn set_address(&self, address: Address) {
        self.address.store(number(address), Ordering::SeqCst);
    }

    /// Stores what the worker has found out about the backend. Called by the worker only.
    pub(super) fn set_connected(&self, connected: bool) {
        if self.is_connected() != connected {
            self.is_connected.store(connected, Ordering::SeqCst);
            // The write fails only when the counter is at its limit; an event is pending then.
            let _ = self.for_host.write(1);
        }
    }
}

fn number([a, b, c, d, e, f]: Address) -> u64 {
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}
