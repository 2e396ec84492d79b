// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The interrupt of one virtio device: the event descriptor that raises its line, the interrupt-status register, and
//! the two facts about a device that go with a configuration interrupt. Raised by workers on their event loops, read
//! and acknowledged by vCPU threads; all of it is atomic. Virtio 1.3, 2.9 and 4.2.2.
//!
//! The line is edge-triggered: each write to the event descriptor is one pulse. The status bit is set before the pulse,
//! and after the used ring was written, so a driver that acknowledges first and looks at the ring afterwards misses
//! nothing.

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
    /// An interrupt on the line that `line` raises (an irqfd, non-blocking).
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

    /// The device has used buffers of a queue.
    pub fn queue(&self) {
        self.raise(VIRTIO_MMIO_INT_VRING);
    }

    /// The device's configuration space has changed: moves the configuration generation and interrupts.
    pub fn config(&self) {
        self.shared.config_generation.fetch_add(1, Ordering::SeqCst);
        self.raise(VIRTIO_MMIO_INT_CONFIG);
    }

    /// The device cannot go on until the driver resets it.
    pub fn needs_reset(&self) {
        self.shared.needs_reset.store(true, Ordering::SeqCst);
        self.raise(VIRTIO_MMIO_INT_CONFIG);
    }

    fn raise(&self, bit: u32) {
        self.shared.status.fetch_or(bit, Ordering::SeqCst);
        // It fails only when the counter is at its limit, and then the line has been raised often enough.
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

    /// Forgets causes and needs-reset, as a device reset does. The generation goes on.
    pub(crate) fn clear(&self) {
        self.shared.status.store(0, Ordering::SeqCst);
        self.shared.needs_reset.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_bit_stays_until_acknowledged_and_each_cause_is_a_pulse() {
        let line = EventFd::new(libc::EFD_NONBLOCK).unwrap();
        let interrupt = Interrupt::new(line.try_clone().unwrap());
        interrupt.queue();
        interrupt.config();
        assert_eq!(line.read().unwrap(), 2);
        interrupt.acknowledge(VIRTIO_MMIO_INT_VRING);
        assert_eq!(interrupt.status(), VIRTIO_MMIO_INT_CONFIG);
        assert_eq!(interrupt.config_generation(), 1);
    }
}
