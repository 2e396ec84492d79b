// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A driver that can do everything wrong: registers, rings and chains of the selected device. Each
//! device has 64 KiB of the arena for the rings of its queues and 64 KiB for buffers.

use crate::{ARENA_SIZE, BLOCK, CONSOLE, MAX_DEVICES, MAX_QUEUES, Machine, NET, RNG, VSOCK};

const DEVICE_ID: u64 = 0x8;
pub(crate) const DEVICE_FEATURES: u64 = 0x10;
pub(crate) const DEVICE_FEATURES_SELECT: u64 = 0x14;
pub(crate) const DRIVER_FEATURES: u64 = 0x20;
pub(crate) const DRIVER_FEATURES_SELECT: u64 = 0x24;
pub(crate) const QUEUE_SELECT: u64 = 0x30;
pub(crate) const QUEUE_SIZE_MAX: u64 = 0x34;
pub(crate) const QUEUE_SIZE: u64 = 0x38;
pub(crate) const QUEUE_READY: u64 = 0x44;
pub(crate) const QUEUE_NOTIFY: u64 = 0x50;
pub(crate) const INTERRUPT_STATUS: u64 = 0x60;
pub(crate) const INTERRUPT_ACKNOWLEDGE: u64 = 0x64;
pub(crate) const STATUS: u64 = 0x70;
/// Low halves of the addresses of descriptor table, available ring and used ring.
pub(crate) const RING_REGISTERS: [u64; 3] = [0x80, 0x90, 0xa0];

pub(crate) const NEEDS_RESET: u32 = 0x40;
pub(crate) const VERSION_1: u64 = 1 << 32;
const INDIRECT_FEATURE: u64 = 1 << 28;

pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

const MAX_QUEUE_SIZE: u16 = 8;
/// Bytes for the rings of one queue, and where the two rings begin in them.
const RINGS_SIZE: u64 = 0x1000;
const AVAILABLE: u64 = 0x400;
const USED: u64 = 0x800;
const DEVICE_SIZE: u64 = 0x1_0000;
const BUFFERS: u64 = MAX_DEVICES as u64 * DEVICE_SIZE;
const _: () = assert!(BUFFERS + MAX_DEVICES as u64 * DEVICE_SIZE <= ARENA_SIZE);
const _: () = assert!(MAX_QUEUES as u64 * RINGS_SIZE <= DEVICE_SIZE);

/// What a device did wrong, with the number that shows it.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// The expectation that was not met.
    pub what: &'static str,
    /// What was found instead.
    pub found: u64,
}

pub(crate) fn expect(condition: bool, what: &'static str, found: impl Into<u64>) -> Result<(), Fault> {
    if condition { Ok(()) } else { Err(Fault { what, found: found.into() }) }
}

/// One descriptor to write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptor {
    pub(crate) address: u64,
    pub(crate) length: u32,
    pub(crate) flags: u16,
    pub(crate) next: u16,
}

#[derive(Clone, Copy, Debug, Default)]
struct Ring {
    size: u16,
    offered: u16,
    returned: u16,
}

/// The driver of all devices, one of which is selected.
pub struct Driver<'m> {
    pub(crate) machine: &'m mut dyn Machine,
    device: usize,
    rings: [[Ring; MAX_QUEUES]; MAX_DEVICES],
    identities: [Identity; MAX_DEVICES],
}

/// What never changes of a device, read once: each access of a register may cost an exit of a vCPU.
#[derive(Clone, Copy, Debug, Default)]
struct Identity {
    id: u32,
    features: u64,
    sizes: [u32; MAX_QUEUES],
}

impl<'m> Driver<'m> {
    pub(crate) fn new(machine: &'m mut dyn Machine) -> Self {
        let rings = [[Ring::default(); MAX_QUEUES]; MAX_DEVICES];
        let mut driver = Self { machine, device: 0, rings, identities: [Identity::default(); MAX_DEVICES] };
        for device in 0..driver.devices() {
            driver.select(device);
            driver.identities[device] = driver.identify();
        }
        driver
    }

    fn identify(&mut self) -> Identity {
        let mut half = |select: u32| {
            self.write(DEVICE_FEATURES_SELECT, select);
            u64::from(self.read(DEVICE_FEATURES))
        };
        let features = half(0) | half(1) << 32;
        let mut sizes = [0; MAX_QUEUES];
        for (queue, size) in (0..).zip(&mut sizes) {
            self.write(QUEUE_SELECT, queue);
            *size = self.read(QUEUE_SIZE_MAX);
        }
        Identity { id: self.read(DEVICE_ID), features, sizes }
    }

    pub(crate) fn devices(&self) -> usize {
        self.machine.devices()
    }

    pub(crate) fn select(&mut self, device: usize) {
        self.device = device;
    }

    pub(crate) fn read(&mut self, offset: u64) -> u32 {
        self.machine.read(self.device, offset, 4) as u32
    }

    pub(crate) fn read_wide(&mut self, offset: u64, width: usize) -> u64 {
        self.machine.read(self.device, offset, width)
    }

    pub(crate) fn write(&mut self, offset: u64, value: u32) {
        self.machine.write(self.device, offset, 4, u64::from(value));
    }

    pub(crate) fn write_wide(&mut self, offset: u64, width: usize, value: u64) {
        self.machine.write(self.device, offset, width, value);
    }

    pub(crate) fn id(&self) -> u32 {
        self.identities[self.device].id
    }

    /// Number of queues that are driven.
    pub(crate) fn queues(&self) -> u16 {
        let sizes = &self.identities[self.device].sizes;
        sizes.iter().position(|&size| size == 0).unwrap_or(MAX_QUEUES) as u16
    }

    /// The queue whose chains are answered at once.
    pub(crate) fn served_queue(&self) -> u16 {
        if matches!(self.id(), BLOCK | RNG) { 0 } else { 1 }
    }

    pub(crate) fn features(&self) -> u64 {
        self.identities[self.device].features
    }

    pub(crate) fn reset(&mut self) {
        self.write(STATUS, 0);
    }

    /// Resets the device and takes it to the step before its features are accepted.
    pub(crate) fn introduce(&mut self) {
        self.reset();
        self.write(STATUS, 1);
        self.write(STATUS, 3);
    }

    /// Resets the device and asks for `features` to be accepted.
    pub(crate) fn negotiate(&mut self, features: u64) -> bool {
        self.introduce();
        for half in 0..2 {
            self.write(DRIVER_FEATURES_SELECT, half);
            self.write(DRIVER_FEATURES, (features >> (32 * half)) as u32);
        }
        self.write(STATUS, 11);
        self.read(STATUS) == 11
    }

    /// Resets the device and has the features accepted that this driver uses.
    pub(crate) fn prepare(&mut self) -> Result<(), Fault> {
        self.prepare_with(0)
    }

    fn prepare_with(&mut self, wanted: u64) -> Result<(), Fault> {
        let features = self.features() & (INDIRECT_FEATURE | wanted) | VERSION_1;
        let accepted = self.negotiate(features);
        expect(accepted, "features are accepted", self.read(STATUS))
    }

    /// Addresses of a queue's descriptor table and rings.
    pub(crate) fn addresses(&self, queue: u16) -> [u64; 3] {
        let base = self.machine.arena() + self.device as u64 * DEVICE_SIZE + u64::from(queue) * RINGS_SIZE;
        [base, base + AVAILABLE, base + USED]
    }

    /// The buffers of this device: 64 KiB.
    pub(crate) fn buffer(&self) -> u64 {
        self.machine.arena() + BUFFERS + self.device as u64 * DEVICE_SIZE
    }

    pub(crate) fn ring_size(&self, queue: u16) -> u16 {
        self.rings[self.device][usize::from(queue)].size
    }

    /// Writes the registers of a queue, except ready.
    pub(crate) fn describe(&mut self, queue: u16, size: u32, addresses: [u64; 3]) {
        self.write(QUEUE_SELECT, u32::from(queue));
        self.write(QUEUE_SIZE, size);
        for (register, address) in RING_REGISTERS.into_iter().zip(addresses) {
            self.write(register, address as u32);
            self.write(register + 4, (address >> 32) as u32);
        }
    }

    /// Describes a queue as it should be, with empty rings.
    pub(crate) fn describe_well(&mut self, queue: u16) {
        let size = self.identities[self.device].sizes[usize::from(queue)].min(u32::from(MAX_QUEUE_SIZE));
        let addresses = self.addresses(queue);
        self.machine.store(addresses[0], &[0; USED as usize + 0x100]);
        self.rings[self.device][usize::from(queue)] = Ring { size: size as u16, offered: 0, returned: 0 };
        self.describe(queue, size, addresses);
    }

    /// Resets the device and brings it up as a good driver does.
    pub(crate) fn start(&mut self) -> Result<(), Fault> {
        self.start_with(0)
    }

    /// The same, with the features of `wanted` that are offered.
    pub(crate) fn start_with(&mut self, wanted: u64) -> Result<(), Fault> {
        self.reset();
        expect(self.read(STATUS) == 0, "status is 0 after a reset", self.read(STATUS))?;
        self.prepare_with(wanted)?;
        for queue in 0..self.queues() {
            self.describe_well(queue);
            self.write(QUEUE_READY, 1);
        }
        self.write(STATUS, 15);
        expect(self.read(STATUS) == 15, "the device is ready", self.read(STATUS))
    }

    pub(crate) fn put(&mut self, table: u64, index: u16, descriptor: Descriptor) {
        let Descriptor { address, length, flags, next } = descriptor;
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&address.to_le_bytes());
        bytes[8..12].copy_from_slice(&length.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&next.to_le_bytes());
        self.machine.store(table + 16 * u64::from(index), &bytes);
    }

    /// Writes descriptors from number 0 on to the table of `queue`.
    pub(crate) fn put_all(&mut self, queue: u16, descriptors: &[Descriptor]) {
        let table = self.addresses(queue)[0];
        for (index, &descriptor) in (0..).zip(descriptors) {
            self.put(table, index, descriptor);
        }
    }

    /// Writes a head to the available ring without showing it.
    pub(crate) fn offer(&mut self, queue: u16, head: u16) {
        let available = self.addresses(queue)[1];
        let ring = &mut self.rings[self.device][usize::from(queue)];
        let slot = available + 4 + 2 * u64::from(ring.offered % ring.size);
        ring.offered = ring.offered.wrapping_add(1);
        self.machine.store(slot, &head.to_le_bytes());
    }

    /// Shows what was offered, as if it were `more` entries more, and notifies.
    pub(crate) fn publish(&mut self, queue: u16, more: u16) {
        let available = self.addresses(queue)[1];
        let index = self.rings[self.device][usize::from(queue)].offered.wrapping_add(more);
        self.machine.store(available + 2, &index.to_le_bytes());
        self.write(QUEUE_NOTIFY, u32::from(queue));
    }

    fn wait_for<T>(
        &mut self,
        what: &'static str,
        mut look: impl FnMut(&mut Self) -> Result<Option<T>, Fault>,
    ) -> Result<T, Fault> {
        for attempt in 0.. {
            if let Some(found) = look(self)? {
                return Ok(found);
            }
            if !self.machine.wait(attempt) {
                break;
            }
        }
        Err(Fault { what, found: u64::from(self.read(STATUS)) })
    }

    /// Waits for the next chain that the device returns: head and length.
    pub(crate) fn returned(&mut self, queue: u16) -> Result<(u32, u32), Fault> {
        let used = self.addresses(queue)[2];
        self.wait_for("the chain is returned", |driver| {
            let ring = &mut driver.rings[driver.device][usize::from(queue)];
            let (before, size) = (ring.returned, ring.size);
            let mut index = [0; 2];
            driver.machine.load(used + 2, &mut index);
            if u16::from_le_bytes(index) == before {
                return Ok(None);
            }
            driver.rings[driver.device][usize::from(queue)].returned = before.wrapping_add(1);
            let (mut head, mut length) = ([0; 4], [0; 4]);
            let slot = used + 4 + 8 * u64::from(before % size);
            driver.machine.load(slot, &mut head);
            driver.machine.load(slot + 4, &mut length);
            Ok(Some((u32::from_le_bytes(head), u32::from_le_bytes(length))))
        })
    }

    pub(crate) fn needs_reset(&mut self) -> Result<(), Fault> {
        self.wait_for("the device needs a reset", |driver| Ok((driver.read(STATUS) & NEEDS_RESET != 0).then_some(())))
    }

    /// Offers the chain at descriptor 0 and waits until it is returned. Returns the length.
    pub(crate) fn exchange(&mut self, queue: u16, descriptors: &[Descriptor]) -> Result<u32, Fault> {
        self.put_all(queue, descriptors);
        self.offer(queue, 0);
        self.publish(queue, 0);
        let (head, length) = self.returned(queue)?;
        expect(head == 0, "the head is returned", head)?;
        Ok(length)
    }

    /// A request that the device has to serve, and the interrupt for it.
    pub(crate) fn good_request(&mut self) -> Result<(), Fault> {
        let (queue, buffer) = (self.served_queue(), self.buffer());
        self.write(INTERRUPT_ACKNOWLEDGE, 3);
        let readable = |length, flags, next| Descriptor { address: buffer, length, flags, next };
        match self.id() {
            BLOCK => {
                self.machine.store(buffer, &[0; 16]);
                self.machine.store(buffer + 0x1000, &[0xff; 513]);
                let chain = [
                    readable(16, NEXT, 1),
                    Descriptor { address: buffer + 0x1000, length: 513, flags: WRITE, next: 0 },
                ];
                let length = self.exchange(queue, &chain)?;
                expect(length == 513, "a sector and its status are written", length)?;
                let mut status = [0; 1];
                self.machine.load(buffer + 0x1000 + 512, &mut status);
                expect(status[0] == 0, "the status of a read is 0", status[0])?;
            }
            RNG => {
                let chain = [Descriptor { address: buffer, length: 64, flags: WRITE, next: 0 }];
                let length = self.exchange(queue, &chain)?;
                expect(length == 64, "64 random bytes are written", length)?;
            }
            CONSOLE => {
                self.machine.store(buffer, b".");
                let length = self.exchange(queue, &[readable(1, 0, 0)])?;
                expect(length == 0, "nothing is written", length)?;
            }
            NET => {
                self.machine.store(buffer, &[0; 12 + 60]);
                let length = self.exchange(queue, &[readable(12 + 60, 0, 0)])?;
                expect(length == 0, "nothing is written", length)?;
            }
            VSOCK => {
                self.machine.store(buffer, &socket_reset());
                let length = self.exchange(queue, &[readable(44, 0, 0)])?;
                expect(length == 0, "nothing is written", length)?;
            }
            id => return Err(Fault { what: "the device is one of those in the table", found: u64::from(id) }),
        }
        self.wait_for("an interrupt is pending", |driver| Ok((driver.read(INTERRUPT_STATUS) & 1 != 0).then_some(())))?;
        self.write(INTERRUPT_ACKNOWLEDGE, 1);
        expect(self.read(STATUS) == 15, "the device is still ready", self.read(STATUS))
    }
}

/// A packet of virtio 1.3, 5.10.6, that needs no answer: a stream that does not exist is reset.
pub(crate) fn socket_reset() -> [u8; 44] {
    let mut header = [0; 44];
    // From the guest to the host, a stream, VIRTIO_VSOCK_OP_RST.
    (header[0], header[8], header[28], header[30]) = (3, 2, 1, 3);
    header
}
