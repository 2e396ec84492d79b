// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The one way in which a virtio device joins the machine: a place, an interrupt, a kick a queue, a transport on the
//! bus. Runs on `main`.

use super::slots::Slots;
use devices::bus::{BusBuilder, OverlapError};
use devices::event_loop::EventLoopHandle;
use devices::interrupt::Interrupt;
use devices::virtio::VirtioDevice;
use devices::virtio::mmio::{MmioTransport, QUEUE_NOTIFY};
use kvm::{KvmVm, VmError};
use std::sync::Arc;
use vmm_sys_util::eventfd::EventFd;

/// A device could not join.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttachError {
    /// More devices than interrupt lines.
    #[error("no interrupt line is left for {0}")]
    NoSlot(String),
    /// The host has no event descriptor left.
    #[error("cannot create an event descriptor")]
    Event(#[source] std::io::Error),
    /// The host's KVM refused it.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// Two devices at one address.
    #[error(transparent)]
    Overlap(#[from] OverlapError),
}

/// What a device is attached to.
#[derive(Debug)]
pub(super) struct Sockets<'a> {
    pub(super) vm: &'a KvmVm,
    pub(super) mmio: &'a mut BusBuilder,
    pub(super) slots: &'a mut Slots,
}

impl Sockets<'_> {
    /// Joins `device` to the machine; its worker will run on `event_loop`.
    pub(super) fn attach(
        &mut self,
        device: Box<dyn VirtioDevice>,
        event_loop: EventLoopHandle,
    ) -> Result<Arc<MmioTransport>, AttachError> {
        let slot = self.slots.next_slot().ok_or_else(|| AttachError::NoSlot(device.identity().name.to_owned()))?;
        let line = event()?;
        self.vm.connect_interrupt(&line, slot.line)?;
        let kicks = (0..device.identity().queue_sizes.len()).map(|_| event()).collect::<Result<Vec<_>, _>>()?;
        for (queue, kick) in (0..).zip(&kicks) {
            self.vm.connect_queue_event(kick, slot.window.0 + QUEUE_NOTIFY, queue)?;
        }
        let memory = self.vm.memory().clone();
        let transport = Arc::new(MmioTransport::new(device, memory, Interrupt::new(line), kicks, event_loop));
        self.mmio.insert(slot.window.0, boot::layout::VIRTIO_MMIO_WINDOW, transport.clone())?;
        Ok(transport)
    }
}

fn event() -> Result<EventFd, AttachError> {
    EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).map_err(AttachError::Event)
}
