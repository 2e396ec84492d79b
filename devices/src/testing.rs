// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A driver in memory: builds chains, notifies, reads results, and brings a device up through its
//! registers. For the tests of this crate, and with the feature `testing` for other packages and
//! fuzz targets. It panics where a real driver would hang.
//!
//! Guest memory is one region. Each queue has 64 KiB of it for its rings; buffers come from the
//! rest and are never reused.

use crate::GuestMemory;
use crate::bus::{Action, BusDevice};
use crate::interrupt::Interrupt;
use crate::virtio::mmio::MmioTransport;
use crate::virtio::queue::Virtqueue;
use crate::virtio::{Activation, TRANSPORT_FEATURES};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

/// Bytes of guest memory.
pub const MEMORY_SIZE: usize = 4 << 20;
/// First address of the buffers.
const BUFFERS: u64 = 2 << 20;
/// Bytes for the rings of one queue.
const RINGS_SIZE: u64 = 0x1_0000;
const AVAILABLE: u64 = 0x5000;
const USED: u64 = 0x8000;

/// Descriptor flag: another descriptor follows.
pub const NEXT: u16 = 1;
/// Descriptor flag: for the device to write.
pub const WRITE: u16 = 2;
/// Descriptor flag: the buffer is a table of descriptors.
pub const INDIRECT: u16 = 4;

/// A buffer to offer.
#[derive(Clone, Copy, Debug)]
pub enum Buffer<'a> {
    /// For the device to read.
    Readable(&'a [u8]),
    /// This many bytes for the device to write.
    Writable(u32),
}

/// A chain that was offered.
#[derive(Clone, Debug)]
pub struct Offered {
    /// Its first descriptor.
    pub head: u16,
    /// Address and length of each buffer.
    pub buffers: Vec<(u64, u32)>,
}

/// One queue as its driver sees it.
#[derive(Debug)]
struct Rings {
    base: u64,
    size: u16,
    event: EventFd,
    next_descriptor: u16,
    offered: u16,
    returned: u16,
}

/// The driver of one device.
#[derive(Debug)]
pub struct Driver {
    /// The guest's memory.
    pub memory: GuestMemory,
    /// The device's interrupt.
    pub interrupt: Interrupt,
    line: EventFd,
    queues: Vec<Rings>,
    next_buffer: u64,
}

/// A non-blocking event descriptor.
///
/// # Panics
/// The host has none left.
#[must_use]
pub fn event() -> EventFd {
    EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).expect("an event descriptor")
}

impl Driver {
    /// A driver for a device with queues of these sizes.
    #[must_use]
    pub fn new(sizes: &[u16]) -> Self {
        assert!(sizes.len() as u64 * RINGS_SIZE < BUFFERS, "too many queues");
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY_SIZE)]).expect("memory");
        let rings = |(index, &size): (usize, &u16)| Rings {
            base: (index as u64 + 1) * RINGS_SIZE,
            size,
            event: event(),
            next_descriptor: 0,
            offered: 0,
            returned: 0,
        };
        let queues = sizes.iter().enumerate().map(rings).collect();
        let line = event();
        let interrupt = Interrupt::new(line.try_clone().expect("an event descriptor"));
        Self { memory, interrupt, line, queues, next_buffer: BUFFERS }
    }

    /// The same driver over a copy of its memory, with an interrupt and queue events of its own.
    ///
    /// # Panics
    /// The host has no memory or descriptor left.
    #[must_use]
    pub fn copy(&self) -> Self {
        let sizes: Vec<u16> = self.queues.iter().map(|rings| rings.size).collect();
        let mut copy = Self::new(&sizes);
        let mut contents = vec![0; MEMORY_SIZE];
        self.memory.read_slice(&mut contents, GuestAddress(0)).expect("all of memory");
        copy.memory.write_slice(&contents, GuestAddress(0)).expect("all of memory");
        for (rings, ours) in copy.queues.iter_mut().zip(&self.queues) {
            rings.next_descriptor = ours.next_descriptor;
            (rings.offered, rings.returned) = (ours.offered, ours.returned);
        }
        copy.next_buffer = self.next_buffer;
        copy
    }

    /// The device's side of everything, as a transport passes it on after this driver accepted
    /// `features`.
    #[must_use]
    pub fn activation(&self, features: u64) -> Activation {
        let features = features | TRANSPORT_FEATURES;
        let queues = (0..self.queues.len()).map(|index| self.virtqueue(index, features)).collect();
        Activation { features, memory: self.memory.clone(), queues, interrupt: self.interrupt.clone() }
    }

    /// The device's side of one queue.
    #[must_use]
    pub fn virtqueue(&self, index: usize, features: u64) -> Virtqueue {
        let rings = &self.queues[index];
        let mut ring = Queue::new(rings.size).expect("a power of two");
        ring.set_desc_table_address(Some(rings.base as u32), None);
        ring.set_avail_ring_address(Some((rings.base + AVAILABLE) as u32), None);
        ring.set_used_ring_address(Some((rings.base + USED) as u32), None);
        ring.set_event_idx(features & 1 << 29 != 0);
        ring.set_ready(true);
        let event = Arc::new(rings.event.try_clone().expect("an event descriptor"));
        let (memory, interrupt) = (self.memory.clone(), self.interrupt.clone());
        Virtqueue::new(format!("test, queue {index}"), ring, event, memory, interrupt, features & 1 << 28 != 0)
    }

    /// Queue events for a transport.
    #[must_use]
    pub fn queue_events(&self) -> Vec<EventFd> {
        self.queues.iter().map(|rings| rings.event.try_clone().expect("an event descriptor")).collect()
    }

    /// Brings the device up through its registers, accepting `features` and those of the transport.
    ///
    /// # Panics
    /// The host cannot activate the device.
    pub fn start(&self, transport: &MmioTransport, features: u64) {
        assert_eq!(self.try_start(transport, features), Action::None);
    }

    /// Like [`start`](Self::start), and returns what the last write, that of DRIVER_OK, returned.
    #[must_use]
    pub fn try_start(&self, transport: &MmioTransport, features: u64) -> Action {
        let write = |offset: u64, value: u32| assert_eq!(transport.write(offset, &value.to_le_bytes()), Action::None);
        let features = features | TRANSPORT_FEATURES;
        for status in [0, 1, 3] {
            write(0x70, status);
        }
        for half in 0..2 {
            write(0x24, half);
            write(0x20, (features >> (32 * half)) as u32);
        }
        write(0x70, 11);
        for (index, rings) in (0..).zip(&self.queues) {
            write(0x30, index);
            write(0x38, u32::from(rings.size));
            for (register, address) in [(0x80, rings.base), (0x90, rings.base + AVAILABLE), (0xa0, rings.base + USED)] {
                write(register, address as u32);
                write(register + 4, (address >> 32) as u32);
            }
            write(0x44, 1);
        }
        transport.write(0x70, &15u32.to_le_bytes())
    }

    /// Forgets everything that was offered, as a driver does after a reset.
    pub fn reset(&mut self) {
        for rings in &mut self.queues {
            (rings.next_descriptor, rings.offered, rings.returned) = (0, 0, 0);
            self.memory.write_slice(&[0; RINGS_SIZE as usize], GuestAddress(rings.base)).expect("rings are in memory");
        }
    }

    /// Offers one chain and notifies.
    pub fn offer(&mut self, queue: usize, buffers: &[Buffer<'_>]) -> Offered {
        let head = self.queues[queue].next_descriptor;
        let mut places = Vec::new();
        for (position, buffer) in buffers.iter().enumerate() {
            let (length, flags) = match buffer {
                Buffer::Readable(bytes) => (bytes.len() as u32, 0),
                Buffer::Writable(length) => (*length, WRITE),
            };
            let address = self.allocate(length);
            if let Buffer::Readable(bytes) = buffer {
                self.memory.write_slice(bytes, GuestAddress(address)).expect("buffers are in memory");
            }
            let index = self.queues[queue].next_descriptor;
            let next = (index + 1) % self.queues[queue].size;
            self.queues[queue].next_descriptor = next;
            let more = if position + 1 < buffers.len() { NEXT } else { 0 };
            self.write_descriptor(queue, index, address, length, flags | more, next);
            places.push((address, length));
        }
        self.offer_head(queue, head);
        self.notify(queue);
        Offered { head, buffers: places }
    }

    /// Allocates a buffer and returns its address.
    pub fn allocate(&mut self, length: u32) -> u64 {
        let address = self.next_buffer;
        self.next_buffer += u64::from(length).next_multiple_of(16);
        assert!(self.next_buffer <= MEMORY_SIZE as u64, "out of buffers");
        address
    }

    /// Writes one descriptor, valid or not.
    pub fn write_descriptor(&self, queue: usize, index: u16, address: u64, length: u32, flags: u16, next: u16) {
        let table = self.queues[queue].base;
        self.write_descriptor_at(table + 16 * u64::from(index), address, length, flags, next);
    }

    /// Writes one descriptor anywhere, for indirect tables.
    pub fn write_descriptor_at(&self, place: u64, address: u64, length: u32, flags: u16, next: u16) {
        let descriptor = Descriptor::new(address, length, flags, next);
        self.memory.write_obj(descriptor, GuestAddress(place)).expect("tables are in memory");
    }

    /// Writes a head to the available ring, valid or not, without a notification.
    pub fn offer_head(&mut self, queue: usize, head: u16) {
        let rings = &mut self.queues[queue];
        let slot = rings.base + AVAILABLE + 4 + 2 * u64::from(rings.offered % rings.size);
        self.memory.write_obj(head.to_le(), GuestAddress(slot)).expect("rings are in memory");
        rings.offered = rings.offered.wrapping_add(1);
        let offered = rings.offered;
        self.set_available_index(queue, offered);
    }

    /// Writes the available index, valid or not.
    pub fn set_available_index(&self, queue: usize, index: u16) {
        let place = GuestAddress(self.queues[queue].base + AVAILABLE + 2);
        self.memory.store(index.to_le(), place, Ordering::Release).expect("rings are in memory");
    }

    /// Writes the flags of the available ring.
    pub fn set_available_flags(&self, queue: usize, flags: u16) {
        let place = GuestAddress(self.queues[queue].base + AVAILABLE);
        self.memory.store(flags.to_le(), place, Ordering::Release).expect("rings are in memory");
    }

    /// Notifies the device.
    pub fn notify(&self, queue: usize) {
        self.queues[queue].event.write(1).expect("a notification");
    }

    /// Whether the device wants a notification (with event indices) of what is offered next.
    #[must_use]
    pub fn is_notification_wanted(&self, queue: usize) -> bool {
        let rings = &self.queues[queue];
        let place = GuestAddress(rings.base + USED + 4 + 8 * u64::from(rings.size));
        let event: u16 = self.memory.load(place, Ordering::Acquire).expect("rings are in memory");
        u16::from_le(event) == rings.offered
    }

    /// The next chain that was returned: head and written bytes. Requests an interrupt for the one
    /// after.
    pub fn returned(&mut self, queue: usize) -> Option<(u16, u32)> {
        let rings = &mut self.queues[queue];
        let index: u16 =
            self.memory.load(GuestAddress(rings.base + USED + 2), Ordering::Acquire).expect("rings are in memory");
        if u16::from_le(index) == rings.returned {
            return None;
        }
        let slot = rings.base + USED + 4 + 8 * u64::from(rings.returned % rings.size);
        let [head, length]: [u32; 2] = self.memory.read_obj(GuestAddress(slot)).expect("rings are in memory");
        rings.returned = rings.returned.wrapping_add(1);
        let event = GuestAddress(rings.base + AVAILABLE + 4 + 2 * u64::from(rings.size));
        self.memory.store(rings.returned.to_le(), event, Ordering::Release).expect("rings are in memory");
        Some((u32::from_le(head) as u16, u32::from_le(length)))
    }

    /// Waits for the next chain that a worker on an event loop returns.
    ///
    /// # Panics
    /// None is returned within ten seconds.
    pub fn wait_returned(&mut self, queue: usize) -> (u16, u32) {
        let epoll = Epoll::new().expect("an epoll descriptor");
        let line = EpollEvent::new(EventSet::IN, 0);
        epoll.ctl(ControlOperation::Add, self.line.as_raw_fd(), line).expect("a watch");
        for _ in 0..10_000 {
            if let Some(returned) = self.returned(queue) {
                return returned;
            }
            // The interrupt line ends the wait; the time limit is for interrupts that were rightly
            // suppressed.
            let _ = epoll.wait(1, &mut [EpollEvent::default()]);
            let _ = self.line.read();
        }
        panic!("queue {queue} returned nothing");
    }

    /// Contents of a buffer of an offered chain.
    #[must_use]
    pub fn contents(&self, offered: &Offered, buffer: usize) -> Vec<u8> {
        let (address, length) = offered.buffers[buffer];
        let mut bytes = vec![0; length as usize];
        self.memory.read_slice(&mut bytes, GuestAddress(address)).expect("buffers are in memory");
        bytes
    }

    /// Pulses of the interrupt line since the last call.
    #[must_use]
    pub fn interrupts(&self) -> u64 {
        self.line.read().unwrap_or(0)
    }
}
