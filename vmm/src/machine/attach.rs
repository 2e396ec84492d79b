// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Attaches a virtio device to the machine, in the same way for every device: a place, an
//! interrupt, an event for each queue, a transport on the bus. All descriptors that the device
//! needs are made here, before the machine starts. Runs on `main`.

use boot::{MmioDevice, layout};
use devices::bus::{BusBuilder, OverlapError};
use devices::event_loop::EventLoopHandle;
use devices::interrupt::Interrupt;
use devices::virtio::VirtioDevice;
use devices::virtio::mmio::{MIN_WINDOW, MmioTransport, QUEUE_NOTIFY};
use kvm::{KvmVm, VmError};
use std::sync::Arc;
use vm_memory::GuestAddress;
use vmm_sys_util::eventfd::EventFd;

const _: () = assert!(layout::VIRTIO_MMIO_WINDOW >= MIN_WINDOW);

#[derive(Debug, thiserror::Error)]
pub(crate) enum AttachError {
    #[error("no interrupt line is left for {0}")]
    NoSlot(String),
    #[error("cannot create an event descriptor")]
    Event(#[source] std::io::Error),
    #[error(transparent)]
    Vm(#[from] VmError),
    #[error(transparent)]
    Overlap(#[from] OverlapError),
}

/// The machine's parts that a device is attached to.
#[derive(Debug)]
pub(super) struct AttachContext<'a> {
    pub(super) vm: &'a KvmVm,
    pub(super) mmio: &'a mut BusBuilder,
    pub(super) slots: &'a mut Slots,
    /// The devices that are attached, in order.
    pub(super) transports: Vec<Arc<MmioTransport>>,
}

impl AttachContext<'_> {
    /// Attaches `device`. Its workers will run on `event_loops`, each on the next one in turn.
    pub(super) fn attach(
        &mut self,
        device: Box<dyn VirtioDevice>,
        event_loops: Vec<EventLoopHandle>,
    ) -> Result<Arc<MmioTransport>, AttachError> {
        let slot = self.slots.next_slot().ok_or_else(|| AttachError::NoSlot(device.identity().name.clone()))?;
        let line = event()?;
        self.vm.connect_interrupt(&line, slot.line)?;
        let queues = device.identity().queue_sizes.len();
        let queue_events = (0..queues).map(|_| event()).collect::<Result<Vec<_>, _>>()?;
        for (queue, event) in (0..).zip(&queue_events) {
            self.vm.connect_queue_event(event, slot.window.0 + QUEUE_NOTIFY, queue)?;
        }
        let (memory, interrupt) = (self.vm.memory().clone(), Interrupt::new(line));
        let transport = Arc::new(MmioTransport::new(device, memory, interrupt, queue_events, event_loops));
        self.mmio.insert(slot.window.0, layout::VIRTIO_MMIO_WINDOW, Arc::clone(&transport) as _)?;
        self.transports.push(Arc::clone(&transport));
        Ok(transport)
    }
}

/// Assigns places in order. Disks appear in the guest in this order, as `vda`, `vdb`, ...
#[derive(Debug, Default)]
pub(super) struct Slots {
    taken: Vec<MmioDevice>,
}

impl Slots {
    /// The next place; `None` if no interrupt line is left.
    pub(super) fn next_slot(&mut self) -> Option<MmioDevice> {
        let number = self.taken.len() as u32;
        let line = layout::FIRST_VIRTIO_IRQ + number;
        if line > layout::LAST_VIRTIO_IRQ {
            return None;
        }
        let window = layout::VIRTIO_MMIO_BASE.0 + u64::from(number) * layout::VIRTIO_MMIO_WINDOW;
        let slot = MmioDevice { window: GuestAddress(window), line };
        self.taken.push(slot);
        Some(slot)
    }

    /// The assigned places, in order.
    pub(super) fn taken(&self) -> &[MmioDevice] {
        &self.taken
    }
}

fn event() -> Result<EventFd, AttachError> {
    EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).map_err(AttachError::Event)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn slots_are_distinct_and_end_with_the_interrupt_lines() {
        let mut slots = Slots::default();
        let places: Vec<MmioDevice> = std::iter::from_fn(|| slots.next_slot()).collect();
        let windows: HashSet<u64> = places.iter().map(|slot| slot.window.0).collect();
        let lines: HashSet<u32> = places.iter().map(|slot| slot.line).collect();
        assert_eq!(windows.len(), places.len());
        assert_eq!(lines.len(), places.len());
        assert_eq!(places.len() as u32, layout::LAST_VIRTIO_IRQ - layout::FIRST_VIRTIO_IRQ + 1);
        assert_eq!(slots.next_slot(), None);
        assert_eq!(slots.taken(), places);
    }
}
