// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The interrupt of one virtio device: the event descriptor of its line, the interrupt-status
//! register, and the two facts that come with a configuration interrupt. Workers raise it on their
//! event loops; vCPU threads read and acknowledge it. All of it is atomic. Virtio 1.3, 2.9 and
//! 4.2.2.
//!
//! The line is edge-triggered: each write to the event descriptor is one pulse. The status bit is
//! set before the pulse and after the used ring was written. A driver that acknowledges first and
//! then looks at the ring misses nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_INT_VRING};
use vmm_sys_util::eventfd::EventFd;

/// Raises the line and sets the status bit. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Interrupt {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    line: EventFd,
    status: AtomicU32,
    needs_reset: AtomicBool,
    config_generation: AtomicU32,
}

impl Interrupt {
    /// An interrupt whose line is the irqfd `line`, which must be non-blocking.
    #[must_use]
    pub fn new(line: EventFd) -> Self {
        Self {
            shared: Arc::new(Shared {
                line,
                status: AtomicU32::new(0),
                needs_reset: AtomicBool::new(false),
                config_generation: AtomicU32::new(0),
            }),
        }
    }

    /// Reports used buffers in a queue.
    pub fn signal_queue(&self) {
        self.raise(VIRTIO_MMIO_INT_VRING);
    }

    /// Reports a change of the configuration space, and increments the configuration generation.
    pub fn signal_config(&self) {
        self.change_config();
        self.raise(VIRTIO_MMIO_INT_CONFIG);
    }

    /// Increments the configuration generation for a change that the driver requested, which needs no
    /// interrupt.
    pub fn change_config(&self) {
        self.shared.config_generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Sets DEVICE_NEEDS_RESET: the device cannot go on until the driver resets it.
    pub fn signal_needs_reset(&self) {
        self.shared.needs_reset.store(true, Ordering::SeqCst);
        self.raise(VIRTIO_MMIO_INT_CONFIG);
    }

    fn raise(&self, bit: u32) {
        self.shared.status.fetch_or(bit, Ordering::SeqCst);
        // The write fails only when the counter is at its limit; a pulse is pending then.
        let _ = self.shared.line.write(1);
    }

    /// The interrupt-status register.
    pub(crate) fn status(&self) -> u32 {
        self.shared.status.load(Ordering::SeqCst)
    }

    /// The driver has handled the causes in `bits`.
    pub(crate) fn acknowledge(&self, bits: u32) {
        self.shared.status.fetch_and(!bits, Ordering::SeqCst);
    }

    pub(crate) fn is_reset_needed(&self) -> bool {
        self.shared.needs_reset.load(Ordering::SeqCst)
    }

    pub(crate) fn config_generation(&self) -> u32 {
        self.shared.config_generation.load(Ordering::SeqCst)
    }

    /// Adds saved values to those of a new interrupt, or of the saved one, which may have changed
    /// since. Causes that were not acknowledged pulse the line again: the pulse may have been lost,
    /// and one too many is harmless.
    pub(crate) fn restore(&self, status: u32, needs_reset: bool, config_generation: u32) {
        self.shared.config_generation.fetch_max(config_generation, Ordering::SeqCst);
        self.shared.needs_reset.fetch_or(needs_reset, Ordering::SeqCst);
        if status != 0 {
            self.raise(status);
        }
    }

    /// Clears causes and needs-reset, as a device reset does. The generation is kept.
    pub(crate) fn clear(&self) {
        self.shared.status.store(0, Ordering::SeqCst);
        self.shared.needs_reset.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_bit_stays_until_acknowledged_and_each_cause_pulses() {
        let line = EventFd::new(libc::EFD_NONBLOCK).unwrap();
        let interrupt = Interrupt::new(line.try_clone().unwrap());
        interrupt.signal_queue();
        interrupt.signal_config();
        assert_eq!(line.read().unwrap(), 2);
        interrupt.acknowledge(VIRTIO_MMIO_INT_VRING);
        assert_eq!(interrupt.status(), VIRTIO_MMIO_INT_CONFIG);
        assert_eq!(interrupt.config_generation(), 1);
    }
}
