// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The MMIO transport, version 2: one register window, the device behind it, its driver status and its queue
//! configuration. Called by vCPU threads; the registers are locked, the two that are used while a device runs
//! (interrupt status, queue notification) are not. Virtio 1.3, 4.2.2.
//!
//! Registers are four bytes wide and aligned; any other access to them reads all ones and writes nothing, and so do
//! accesses in the wrong direction. The configuration space takes reads of any width. Everything that is fixed at activation
//! is refused when it is written later, or before features were agreed upon.

use super::queue::Virtqueue;
use super::queue_setup::QueueSetup;
use super::status::{self, Transition, transition};
use super::{Activation, TRANSPORT_FEATURES, VirtioDevice};
use crate::GuestMemory;
use crate::bus::{Action, BusDevice};
use crate::event_loop::{EventLoopHandle, WorkerId};
use crate::guest_warn;
use crate::interrupt::Interrupt;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use virtio_bindings::virtio_config::{VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_F_VERSION_1};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use vmm_sys_util::eventfd::EventFd;

/// Least length of a register window, in bytes: the registers and as much configuration space.
pub const WINDOW_MINIMUM: u64 = 0x200;
/// Offset of the register that kicks a queue when its number is written (an ioeventfd listens there).
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
/// "CRCL"; drivers show it and do nothing with it.
const VENDOR: u32 = u32::from_le_bytes(*b"CRCL");

/// One register window and what is behind it.
pub struct MmioTransport {
    interrupt: Interrupt,
    kicks: Vec<EventFd>,
    memory: GuestMemory,
    event_loop: EventLoopHandle,
    registers: Mutex<Registers>,
    claimed: AtomicBool,
}

impl fmt::Debug for MmioTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MmioTransport").field("device", &self.lock().device.identity().name).finish_non_exhaustive()
    }
}

/// What the driver negotiates. Locked for a register access at a time.
struct Registers {
    device: Box<dyn VirtioDevice>,
    /// Without needs-reset, which is in the interrupt.
    status: u32,
    device_features_select: u32,
    driver_features_select: u32,
    driver_features: u64,
    /// The driver set a feature above bit 63, which nobody offers.
    driver_features_beyond: bool,
    queue_select: u32,
    queues: Vec<QueueSetup>,
    worker: Option<WorkerId>,
}

impl MmioTransport {
    /// A window for `device`, whose workers run on `event_loop`. `kicks` has one non-blocking event descriptor for each
    /// queue; whoever listens at [`QUEUE_NOTIFY`] in the kernel signals the same ones.
    #[must_use]
    pub fn new(
        device: Box<dyn VirtioDevice>,
        memory: GuestMemory,
        interrupt: Interrupt,
        kicks: Vec<EventFd>,
        event_loop: EventLoopHandle,
    ) -> Self {
        let queues = device.identity().queue_sizes.iter().copied().map(QueueSetup::new).collect();
        let registers = Registers {
            device,
            status: 0,
            device_features_select: 0,
            driver_features_select: 0,
            driver_features: 0,
            driver_features_beyond: false,
            queue_select: 0,
            queues,
            worker: None,
        };
        Self { interrupt, kicks, memory, event_loop, registers: Mutex::new(registers), claimed: AtomicBool::new(false) }
    }

    /// Whether a driver was ever ready to use the device.
    #[must_use]
    pub fn is_claimed(&self) -> bool {
        self.claimed.load(Ordering::Relaxed)
    }

    /// Name of the device and the kernel option of its driver: for a hint when nothing ever drove it.
    #[must_use]
    pub fn name_and_kernel_option(&self) -> (String, &'static str) {
        let registers = self.lock();
        let identity = registers.device.identity();
        (identity.name.clone(), identity.kernel_option)
    }

    fn lock(&self) -> MutexGuard<'_, Registers> {
        // A panic of ours while it was held ends the machine in any case.
        self.registers.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn read_register(&self, offset: u64) -> Option<u32> {
        if offset == INTERRUPT_STATUS {
            return Some(self.interrupt.status());
        }
        let registers = self.lock();
        let value = match offset {
            MAGIC_VALUE => MAGIC,
            VERSION => MMIO_VERSION,
            DEVICE_ID => registers.device.identity().device_id,
            VENDOR_ID => VENDOR,
            DEVICE_FEATURES => half(registers.offered_features(), registers.device_features_select),
            QUEUE_SIZE_MAX => registers.selected().map_or(0, |queue| u32::from(queue.max_size)),
            QUEUE_READY => registers.selected().map_or(0, |queue| u32::from(queue.ready)),
            STATUS if self.interrupt.is_reset_needed() => registers.status | VIRTIO_CONFIG_S_NEEDS_RESET,
            STATUS => registers.status,
            CONFIG_GENERATION => self.interrupt.config_generation(),
            // Write-only, reserved, or of a feature that is not offered; a shared-memory length of all ones means none.
            _ => return None,
        };
        Some(value)
    }

    fn write_register(&self, offset: u64, value: u32) {
        match offset {
            QUEUE_NOTIFY => {
                // The slow way of a kick, for when the kernel did not catch it. At the counter's limit it is pending.
                let _ = self.kicks.get(value as usize).map(|kick| kick.write(1));
                return;
            }
            INTERRUPT_ACKNOWLEDGE => return self.interrupt.acknowledge(value),
            _ => {}
        }
        let mut registers = self.lock();
        match offset {
            DEVICE_FEATURES_SELECT => registers.device_features_select = value,
            DRIVER_FEATURES_SELECT => registers.driver_features_select = value,
            DRIVER_FEATURES => registers.set_driver_features(value),
            QUEUE_SELECT => registers.queue_select = value,
            STATUS => self.write_status(&mut registers, value),
            _ => registers.configure_queue(offset, value),
        }
    }

    fn write_status(&self, registers: &mut Registers, written: u32) {
        // The driver writes back what it read, and needs-reset is not its to set or clear.
        match transition(registers.status, written & !VIRTIO_CONFIG_S_NEEDS_RESET) {
            Transition::Reset if written == 0 => self.reset(registers),
            Transition::Advance | Transition::Fail => registers.status = written & !VIRTIO_CONFIG_S_NEEDS_RESET,
            Transition::CheckFeatures if registers.features_are_acceptable() => registers.status |= status::FEATURES_OK,
            Transition::Activate => self.activate(registers),
            Transition::Same => {}
            Transition::CheckFeatures | Transition::Reset | Transition::Refused => {
                guest_warn!(
                    "{}: driver status {written:#x} refused after {:#x}",
                    registers.device.identity().name,
                    registers.status
                );
            }
        }
    }

    /// When this returns, no thread touches the guest's buffers for this device any more.
    fn reset(&self, registers: &mut Registers) {
        if let Some(worker) = registers.worker.take() {
            // It fails only when the loop has ended, and then the worker has too.
            let _ = self.event_loop.remove(worker);
        }
        registers.reset();
        self.interrupt.clear();
    }

    fn activate(&self, registers: &mut Registers) {
        registers.status |= status::DRIVER_OK;
        match self.try_activate(registers) {
            Ok(worker) => {
                registers.worker = Some(worker);
                self.claimed.store(true, Ordering::Relaxed);
            }
            Err(error) => {
                let name = &registers.device.identity().name;
                guest_warn!("{name}: cannot be activated, the device needs a reset: {error:#}");
                self.interrupt.needs_reset();
            }
        }
    }

    fn try_activate(&self, registers: &mut Registers) -> Result<WorkerId, Box<dyn std::error::Error>> {
        let features = registers.driver_features;
        let has = |bit: u32| features & 1 << bit != 0;
        let mut queues = Vec::with_capacity(registers.queues.len());
        for ((index, setup), kick) in registers.queues.iter().enumerate().zip(&self.kicks) {
            let name = format!("{}, queue {index}", registers.device.identity().name);
            let ring = setup.build(&self.memory, has(VIRTIO_RING_F_EVENT_IDX)).map_err(|e| format!("{name}: {e}"))?;
            let (kick, interrupt) = (kick.try_clone()?, self.interrupt.clone());
            queues.push(Virtqueue::new(name, ring, kick, interrupt, has(VIRTIO_RING_F_INDIRECT_DESC)));
        }
        let (memory, interrupt) = (self.memory.clone(), self.interrupt.clone());
        let worker = registers.device.activate(Activation { features, memory, queues, interrupt })?;
        Ok(self.event_loop.add(worker)?)
    }
}

impl Registers {
    fn offered_features(&self) -> u64 {
        self.device.identity().features | TRANSPORT_FEATURES
    }

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
            _ => self.driver_features_beyond |= value != 0,
        }
    }

    fn features_are_acceptable(&self) -> bool {
        let unoffered = self.driver_features & !self.offered_features() != 0 || self.driver_features_beyond;
        !unoffered && self.driver_features & 1 << VIRTIO_F_VERSION_1 != 0
    }

    /// Queues are configured after features were agreed upon and before the driver is ready, and a ready one is fixed.
    fn configure_queue(&mut self, offset: u64, value: u32) {
        let configurable = self.status == status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK;
        let Some(queue) = self.queues.get_mut(self.queue_select as usize).filter(|_| configurable) else { return };
        if offset == QUEUE_READY {
            queue.ready = value == 1;
        }
        if queue.ready {
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

    /// The worker is gone already.
    fn reset(&mut self) {
        self.status = 0;
        self.device_features_select = 0;
        self.driver_features_select = 0;
        self.driver_features = 0;
        self.driver_features_beyond = false;
        self.queue_select = 0;
        self.queues.iter_mut().for_each(|queue| *queue = QueueSetup::new(queue.max_size));
    }
}

impl BusDevice for MmioTransport {
    fn read(&self, offset: u64, data: &mut [u8]) {
        if let Some(offset) = offset.checked_sub(CONFIG) {
            self.lock().device.read_config(offset, data);
        } else if data.len() == 4
            && offset.is_multiple_of(4)
            && let Some(value) = self.read_register(offset)
        {
            data.copy_from_slice(&value.to_le_bytes());
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Action {
        // No device here has configuration that a driver may write.
        if let Ok(value) = <[u8; 4]>::try_from(data)
            && offset < CONFIG
            && offset.is_multiple_of(4)
        {
            self.write_register(offset, u32::from_le_bytes(value));
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
