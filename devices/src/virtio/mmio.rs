// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The MMIO transport, version 2: one register window, the device behind it, its driver status and
//! its queue configuration. Called by vCPU threads. The registers are locked, except the two that
//! are used while a device runs (interrupt status, queue notification). Virtio 1.3, 4.2.2.
//! The host changes the configuration space from another thread (`change_config`).
//!
//! Registers are four bytes wide and aligned; any other access to them reads all ones and writes
//! nothing, and so does an access in the wrong direction. The configuration space takes accesses of
//! any width. A write to what is fixed at activation is ignored later, and before the features were
//! accepted.

use super::queue::Virtqueue;
use super::queue_position::{PositionSlot, QueuePosition};
use super::queue_setup::QueueSetup;
use super::status::{self, Transition, transition};
use super::{Activation, DeviceIdentity, TRANSPORT_FEATURES, VirtioDevice};
use crate::GuestMemory;
use crate::bus::{Action, BusDevice};
use crate::event_loop::{EventLoopHandle, WorkerId};
use crate::guest_warn;
use crate::interrupt::Interrupt;
use crate::planted::{PlantedFault, is_planted};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use virtio_bindings::virtio_config::{VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_F_VERSION_1};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use vmm_sys_util::eventfd::EventFd;

mod saved;

pub use saved::{InvalidDeviceState, RestoreError, SaveError, TransportState};

/// Smallest register window, in bytes: the registers and as much configuration space.
pub const MIN_WINDOW: u64 = 0x200;
/// Offset of the register that notifies the queue whose number is written. An ioeventfd is
/// connected to it.
pub const QUEUE_NOTIFY: u64 = 0x50;

const MAGIC_VALUE: u64 = 0x00;
const VERSION: u64 = 0x04;
const DEVICE_ID: u64 = 0x08;
const VENDOR_ID: u64 = 0x0c;
const DEVICE_FEATURES: u64 = 0x10;
const DEVICE_FEATURES_SELECT: u64 = 0x14;
const DRIVER_FEATURES: u64 = 0x20;
const DRIVER_FEATURES_SELECT: u64 = 0x24;
const QUEUE_SELECT: u64 = 0x30;
const QUEUE_SIZE_MAX: u64 = 0x34;
const QUEUE_SIZE: u64 = 0x38;
const QUEUE_READY: u64 = 0x44;
const INTERRUPT_STATUS: u64 = 0x60;
const INTERRUPT_ACKNOWLEDGE: u64 = 0x64;
const STATUS: u64 = 0x70;
const QUEUE_DESCRIPTOR_LOW: u64 = 0x80;
const QUEUE_DESCRIPTOR_HIGH: u64 = 0x84;
const QUEUE_DRIVER_LOW: u64 = 0x90;
const QUEUE_DRIVER_HIGH: u64 = 0x94;
const QUEUE_DEVICE_LOW: u64 = 0xa0;
const QUEUE_DEVICE_HIGH: u64 = 0xa4;
const CONFIG_GENERATION: u64 = 0xfc;
const CONFIG: u64 = 0x100;

/// "virt".
const MAGIC: u32 = u32::from_le_bytes(*b"virt");
/// Not the legacy interface, which is version 1.
const MMIO_VERSION: u32 = 2;
/// "CRCL". Drivers show it, and do nothing else with it.
const VENDOR: u32 = u32::from_le_bytes(*b"CRCL");

/// One register window and what is behind it.
pub struct MmioTransport {
    /// The device's, which is fixed: readable without the lock.
    identity: DeviceIdentity,
    interrupt: Interrupt,
    queue_events: Vec<Arc<EventFd>>,
    memory: GuestMemory,
    event_loops: Vec<EventLoopHandle>,
    registers: Mutex<Registers>,
    /// Held for a moment while the configuration space is read or changed. `registers` may be held as
    /// long as a worker waits for the host.
    config: Mutex<()>,
    claimed: AtomicBool,
}

impl fmt::Debug for MmioTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MmioTransport").field("device", &self.identity.name).finish_non_exhaustive()
    }
}

/// What the driver negotiates. Locked for one register access at a time.
struct Registers {
    device: Box<dyn VirtioDevice>,
    /// Without needs-reset, which is in the interrupt.
    status: u32,
    device_features_select: u32,
    driver_features_select: u32,
    driver_features: u64,
    /// The driver set a feature above bit 63, where none is offered.
    has_features_beyond: bool,
    queue_select: u32,
    queues: Vec<QueueSetup>,
    /// Each with the number of its event loop.
    workers: Vec<(usize, WorkerId)>,
    /// Where the queues of the workers leave their positions; none without workers.
    positions: Vec<PositionSlot>,
}

/// Why a device is not activated.
enum ActivationFailure {
    /// The driver described a queue that cannot work.
    Driver(String),
    /// The host lacks something.
    Host(String),
}

impl MmioTransport {
    /// A window for `device`. Its workers run on `event_loops`, each on the next one in turn; there
    /// is at least one. `queue_events` has one non-blocking event descriptor for each queue: the
    /// one that the kernel signals for a write to [`QUEUE_NOTIFY`].
    #[must_use]
    pub fn new(
        device: Box<dyn VirtioDevice>,
        memory: GuestMemory,
        interrupt: Interrupt,
        queue_events: Vec<EventFd>,
        event_loops: Vec<EventLoopHandle>,
    ) -> Self {
        let identity = device.identity().clone();
        let sizes = &identity.queue_sizes;
        assert_eq!(sizes.len(), queue_events.len(), "one event descriptor for each queue");
        assert!(!event_loops.is_empty(), "a device has an event loop");
        let queues = sizes.iter().copied().map(QueueSetup::new).collect();
        let registers = Registers {
            device,
            status: 0,
            device_features_select: 0,
            driver_features_select: 0,
            driver_features: 0,
            has_features_beyond: false,
            queue_select: 0,
            queues,
            workers: Vec::new(),
            positions: Vec::new(),
        };
        Self {
            identity,
            interrupt,
            queue_events: queue_events.into_iter().map(Arc::new).collect(),
            memory,
            event_loops,
            registers: Mutex::new(registers),
            config: Mutex::new(()),
            claimed: AtomicBool::new(false),
        }
    }

    /// Whether a driver was ever ready to use the device.
    #[must_use]
    pub fn is_claimed(&self) -> bool {
        self.claimed.load(Ordering::Relaxed)
    }

    /// What is fixed about the device.
    #[must_use]
    pub fn identity(&self) -> &DeviceIdentity {
        &self.identity
    }

    /// Has the driver of a restored device read the configuration space again, which may be another
    /// than when the state was saved.
    pub fn announce_config(&self) {
        if self.is_claimed() {
            self.interrupt.signal_config();
        }
    }

    /// Calls `change`, which changes what the configuration space reads and does nothing else, and
    /// announces it. A driver that reads the space in parts sees another generation if the change came
    /// between two of them. Called by any thread, while vCPUs run.
    pub fn change_config(&self, change: impl FnOnce()) {
        let _read_by_none = lock(&self.config);
        change();
        if self.is_claimed() {
            self.interrupt.signal_config();
        } else {
            self.interrupt.change_config();
        }
    }

    fn offered_features(&self) -> u64 {
        self.identity.features | TRANSPORT_FEATURES
    }

    fn lock(&self) -> MutexGuard<'_, Registers> {
        lock(&self.registers)
    }

    fn read_register(&self, offset: u64) -> Option<u32> {
        if offset == INTERRUPT_STATUS {
            return Some(self.interrupt.status());
        }
        let registers = self.lock();
        let value = match offset {
            MAGIC_VALUE => MAGIC,
            VERSION => MMIO_VERSION,
            DEVICE_ID => self.identity.kind.device_id,
            VENDOR_ID => VENDOR,
            DEVICE_FEATURES => half(self.offered_features(), registers.device_features_select),
            QUEUE_SIZE_MAX => registers.selected().map_or(0, |queue| u32::from(queue.max_size)),
            QUEUE_READY => registers.selected().map_or(0, |queue| u32::from(queue.ready)),
            STATUS if self.interrupt.is_reset_needed() => registers.status | VIRTIO_CONFIG_S_NEEDS_RESET,
            STATUS => registers.status,
            CONFIG_GENERATION => self.interrupt.config_generation(),
            // Write-only, reserved, or of a feature that is not offered. A shared-memory length of
            // all ones means none.
            _ => return None,
        };
        Some(value)
    }

    fn write_register(&self, offset: u64, value: u32) -> Action {
        match offset {
            QUEUE_NOTIFY => {
                // The slow path, for when the kernel did not intercept the write. A write to the
                // event fails only when its counter is at its limit; an event is pending then.
                let _ = self.queue_events.get(value as usize).map(|event| event.write(1));
                return Action::None;
            }
            INTERRUPT_ACKNOWLEDGE => {
                self.interrupt.acknowledge(value);
                return Action::None;
            }
            _ => {}
        }
        let mut registers = self.lock();
        match offset {
            DEVICE_FEATURES_SELECT => registers.device_features_select = value,
            DRIVER_FEATURES_SELECT => registers.driver_features_select = value,
            DRIVER_FEATURES => registers.set_driver_features(value),
            QUEUE_SELECT => registers.queue_select = value,
            STATUS => return self.write_status(&mut registers, value),
            _ => registers.configure_queue(offset, value),
        }
        Action::None
    }

    fn write_status(&self, registers: &mut Registers, written: u32) -> Action {
        // The driver writes back what it read; it can neither set nor clear needs-reset.
        match transition(registers.status, written & !VIRTIO_CONFIG_S_NEEDS_RESET) {
            Transition::Reset if written == 0 => self.reset(registers),
            Transition::Advance | Transition::Fail => registers.status = written & !VIRTIO_CONFIG_S_NEEDS_RESET,
            Transition::CheckFeatures
                if are_acceptable(
                    registers.driver_features,
                    registers.has_features_beyond,
                    self.offered_features(),
                ) =>
            {
                registers.status |= status::FEATURES_OK
            }
            Transition::Activate => return self.activate(registers),
            Transition::Same => {}
            Transition::Rejected if is_planted(PlantedFault::StatusStep) => registers.status = written,
            Transition::CheckFeatures | Transition::Reset | Transition::Rejected => {
                guest_warn!(
                    "{}: driver status {written:#x} rejected after {:#x}",
                    self.identity.name,
                    registers.status
                );
            }
        }
        Action::None
    }

    /// When this returns, no thread touches the guest's buffers for this device any more.
    fn reset(&self, registers: &mut Registers) {
        self.drop_workers(registers);
        registers.reset();
        self.interrupt.clear();
    }

    fn drop_workers(&self, registers: &mut Registers) {
        registers.positions.clear();
        for (event_loop, worker) in registers.workers.drain(..) {
            // It fails only when the loop has ended, and the worker with it. A reset is no orderly
            // stop: no drain.
            drop(self.event_loops[event_loop].take(worker));
        }
    }

    fn activate(&self, registers: &mut Registers) -> Action {
        registers.status |= status::DRIVER_OK;
        let Err(failure) = self.try_activate(registers, None) else {
            self.claimed.store(true, Ordering::Relaxed);
            return Action::None;
        };
        self.interrupt.signal_needs_reset();
        let name = &self.identity.name;
        match failure {
            ActivationFailure::Driver(error) => {
                guest_warn!("{name}: cannot be activated, the device needs a reset: {error}");
                Action::None
            }
            ActivationFailure::Host(error) => Action::HostError(format!("{name}: cannot activate the device: {error}")),
        }
    }

    /// Activates the device, at the `positions` of its queues if they were in use before.
    fn try_activate(
        &self,
        registers: &mut Registers,
        positions: Option<&[QueuePosition]>,
    ) -> Result<(), ActivationFailure> {
        let features = registers.driver_features;
        let has = |bit: u32| features & 1 << bit != 0;
        let mut queues = Vec::with_capacity(registers.queues.len());
        let mut slots = Vec::with_capacity(registers.queues.len());
        for ((index, setup), event) in registers.queues.iter().enumerate().zip(&self.queue_events) {
            let ring = setup
                .build(&self.memory, has(VIRTIO_RING_F_EVENT_IDX))
                .map_err(|error| driver_failure(index, error))?;
            let name = format!("{}, queue {index}", self.identity.name);
            let (event, memory, interrupt) = (Arc::clone(event), self.memory.clone(), self.interrupt.clone());
            let mut queue = Virtqueue::new(name, ring, event, memory, interrupt, has(VIRTIO_RING_F_INDIRECT_DESC));
            if let Some(position) = positions.and_then(|positions| positions.get(index)) {
                queue.continue_at(position).map_err(|error| driver_failure(index, error))?;
            }
            let slot = PositionSlot::default();
            queue.leave_position(slot.clone());
            slots.push(slot);
            queues.push(queue);
        }
        let (memory, interrupt) = (self.memory.clone(), self.interrupt.clone());
        let workers = registers.device.activate(Activation { features, memory, queues, interrupt });
        let workers = workers.map_err(|error| ActivationFailure::Host(error.to_string()))?;
        registers.positions = slots;
        let event_loops = (0..self.event_loops.len()).cycle();
        for (worker, event_loop) in workers.into_iter().zip(event_loops) {
            match self.event_loops[event_loop].add(worker) {
                Ok(worker) => registers.workers.push((event_loop, worker)),
                Err(error) => {
                    // A part of a device is of no use.
                    self.drop_workers(registers);
                    return Err(ActivationFailure::Host(error_line(&error)));
                }
            }
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic on a vCPU thread ends the machine in any case.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn driver_failure(queue: usize, error: impl fmt::Display) -> ActivationFailure {
    ActivationFailure::Driver(format!("queue {queue}: {error}"))
}

/// Whether the driver may use these features.
fn are_acceptable(features: u64, has_features_beyond: bool, offered: u64) -> bool {
    let unoffered = features & !offered != 0 || has_features_beyond;
    (!unoffered || is_planted(PlantedFault::UnofferedFeature)) && features & 1 << VIRTIO_F_VERSION_1 != 0
}

/// An error and its source in one line.
fn error_line(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

impl Registers {
    fn selected(&self) -> Option<&QueueSetup> {
        self.queues.get(self.queue_select as usize)
    }

    fn set_driver_features(&mut self, value: u32) {
        if self.status != status::ACKNOWLEDGE | status::DRIVER {
            return;
        }
        let value = u64::from(value);
        match self.driver_features_select {
            0 => self.driver_features = self.driver_features & !0xffff_ffff | value,
            1 => self.driver_features = self.driver_features & 0xffff_ffff | value << 32,
            _ => self.has_features_beyond |= value != 0,
        }
    }

    /// Queues are configured after the features were accepted and before the driver is ready. A
    /// ready queue is fixed.
    fn configure_queue(&mut self, offset: u64, value: u32) {
        let configurable = self.status == status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK;
        let Some(queue) = self.queues.get_mut(self.queue_select as usize).filter(|_| configurable) else { return };
        if offset == QUEUE_READY {
            queue.ready = value == 1;
        }
        if queue.ready && !is_planted(PlantedFault::ReadyQueue) {
            return;
        }
        match offset {
            QUEUE_SIZE => queue.size = value,
            QUEUE_DESCRIPTOR_LOW => set_low(&mut queue.descriptor_table, value),
            QUEUE_DESCRIPTOR_HIGH => set_high(&mut queue.descriptor_table, value),
            QUEUE_DRIVER_LOW => set_low(&mut queue.available_ring, value),
            QUEUE_DRIVER_HIGH => set_high(&mut queue.available_ring, value),
            QUEUE_DEVICE_LOW => set_low(&mut queue.used_ring, value),
            QUEUE_DEVICE_HIGH => set_high(&mut queue.used_ring, value),
            // Read-only or unknown.
            _ => {}
        }
    }

    /// The workers have been dropped before.
    fn reset(&mut self) {
        self.status = 0;
        self.device_features_select = 0;
        self.driver_features_select = 0;
        self.driver_features = 0;
        self.has_features_beyond = false;
        self.queue_select = 0;
        self.queues.iter_mut().for_each(|queue| *queue = QueueSetup::new(queue.max_size));
    }
}

impl BusDevice for MmioTransport {
    fn read(&self, offset: u64, data: &mut [u8]) {
        if let Some(offset) = offset.checked_sub(CONFIG) {
            let registers = self.lock();
            let _unchanged = lock(&self.config);
            registers.device.read_config(offset, data);
        } else if data.len() == 4
            && offset.is_multiple_of(4)
            && let Some(value) = self.read_register(offset)
        {
            data.copy_from_slice(&value.to_le_bytes());
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Action {
        if let Some(offset) = offset.checked_sub(CONFIG) {
            self.lock().device.write_config(offset, data);
        } else if let Ok(value) = <[u8; 4]>::try_from(data)
            && offset.is_multiple_of(4)
        {
            return self.write_register(offset, u32::from_le_bytes(value));
        }
        Action::None
    }
}

fn half(features: u64, select: u32) -> u32 {
    match select {
        0 => features as u32,
        1 => (features >> 32) as u32,
        _ => 0,
    }
}

fn set_low(address: &mut u64, value: u32) {
    *address = *address & !0xffff_ffff | u64::from(value);
}

fn set_high(address: &mut u64, value: u32) {
    *address = *address & 0xffff_ffff | u64::from(value) << 32;
}

#[cfg(test)]
#[path = "mmio_tests.rs"]
mod tests;
