// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The guest: does the steps of an input, and checks what the device returns.

use crate::input::{Buffer, Content, Input, Length, Step};
use crate::subject::{self, Host, Kind, SharedWorker};
use devices::bus::BusDevice;
use devices::event_loop::{EventLoop, EventLoopHandle};
use devices::testing::{Driver, INDIRECT, NEXT, WRITE};
use devices::turn::Turn;
use devices::virtio::mmio::MmioTransport;
use devices::virtio::{TRANSPORT_FEATURES, VirtioDevice};
use std::collections::HashMap;
use std::sync::LazyLock;
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::epoll::EventSet;

const STATUS: u64 = 0x70;
const INTERRUPT_STATUS: u64 = 0x60;
const NEEDS_RESET: u32 = 64;
/// Where the driver's buffers start.
const BUFFERS: u64 = 2 << 20;
/// Bytes that the driver has for the rings of a queue; the first starts after as many.
const RINGS_SIZE: u64 = 0x1_0000;
/// Descriptor table, available ring, used ring.
const PARTS: [u64; 3] = [0, 0x5000, 0x8000];
/// Descriptors that each chain of [`Step::Chain`] may use.
const SLOT_SIZE: u16 = 4;
/// Tokens of the console's host descriptors start here.
const STREAM_TOKENS: u32 = 1 << 16;

/// One loop for all runs; it ends with the process.
static EVENTS: LazyLock<EventLoopHandle> = LazyLock::new(|| {
    let events = EventLoop::spawn("io").expect("a thread");
    let handle = events.handle();
    std::mem::forget(events);
    handle
});

pub struct Guest {
    kind: Kind,
    polite: bool,
    features: u64,
    sizes: Vec<u16>,
    driver: Driver,
    transport: MmioTransport,
    worker: SharedWorker,
    host: Host,
    /// Writable bytes of each chain of a polite driver that has not been returned, by queue and
    /// head.
    in_flight: HashMap<(usize, u16), u64>,
}

impl Guest {
    pub fn new(input: &Input) -> Self {
        let kind = Kind::from_byte(input.kind);
        let (device, worker, host) = subject::device(kind, input.variant);
        let identity = device.identity();
        let (features, sizes) = (input.features & identity.features | TRANSPORT_FEATURES, identity.queue_sizes.clone());
        let driver = Driver::new(&sizes);
        let (memory, interrupt) = (driver.memory.clone(), driver.interrupt.clone());
        let transport = MmioTransport::new(Box::new(device), memory, interrupt, driver.queue_events(), vec![EVENTS.clone()]);
        let (polite, in_flight) = (input.polite, HashMap::new());
        let guest = Self { kind, polite, features, sizes, driver, transport, worker, host, in_flight };
        if polite {
            guest.start(None);
        }
        guest
    }

    pub fn do_step(&mut self, step: &Step) {
        match *step {
            Step::ReadRegister { offset, width } => {
                self.transport.read(u64::from(offset % 0x1000), &mut [0xff; 8][..usize::from(width % 9)]);
            }
            Step::Chain { queue, slot, content, ref buffers, count } => {
                let count = 1 + usize::from(count) % buffers.len();
                self.chain(self.queue(queue), slot.into(), content, &buffers[..count]);
            }
            Step::Request { queue, slot, content, header, at, sectors, write } => {
                let buffer =
                    |at, length, write| Buffer { at, wild: None, length, flags: if write { WRITE as u8 } else { 0 } };
                let header = if header < 64 { Length::Short(header) } else { Length::Header };
                let mut buffers = vec![buffer(0, header, false), buffer(1, Length::One, true)];
                if sectors > 0 {
                    buffers.insert(1, buffer(at, Length::Sectors(sectors), write));
                }
                self.chain(self.queue(queue), slot.into(), content, &buffers);
            }
            Step::Process { token, ready } => {
                let stream = u32::from(token >> 4) % 4 + STREAM_TOKENS;
                let token = if token & 8 == 0 { u32::from(token & 7) } else { stream };
                self.process(token, EventSet::from_bits_truncate(ready.into()));
            }
            Step::HostSends { count } => self.host.send(&vec![b'x'; count.into()]),
            Step::HostReads => self.host.read(),
            Step::HostCloses { input } => self.host.close(input),
            _ if !self.polite => self.break_rules(step),
            _ => {}
        }
    }

    fn break_rules(&mut self, step: &Step) {
        match *step {
            Step::Start { wrong } => self.start(wrong),
            Step::WriteRegister { offset, width, value } => {
                let bytes = &u64::from(value).to_le_bytes()[..usize::from(width % 9)];
                self.transport.write(u64::from(offset % 0x1000), bytes);
            }
            Step::Descriptor { table, index, buffer, next } => {
                let (address, length) = place_of(&buffer);
                let place = match usize::from(table) % (self.sizes.len() + 1) {
                    0 => BUFFERS,
                    queue => queue as u64 * RINGS_SIZE,
                };
                let flags = u16::from(buffer.flags);
                self.driver.write_descriptor_at(place + 16 * u64::from(index), address, length, flags, next.into());
            }
            Step::Offer { queue, head } => self.driver.offer_head(self.queue(queue), head),
            Step::AvailableIndex { queue, index } => self.driver.set_available_index(self.queue(queue), index),
            Step::AvailableFlags { queue, flags } => self.driver.set_available_flags(self.queue(queue), flags),
            Step::Word { address, value } => self.write(u64::from(address), value),
            Step::RingWord { queue, part, offset, value } => {
                let ring = (self.queue(queue) as u64 + 1) * RINGS_SIZE + PARTS[usize::from(part) % PARTS.len()];
                self.write(ring + u64::from(offset), value);
            }
            _ => unreachable!("the other steps break no rule"),
        }
    }

    fn queue(&self, queue: u8) -> usize {
        usize::from(queue) % self.sizes.len()
    }

    /// A write past the end of memory does nothing.
    fn write(&self, address: u64, value: u64) {
        let _ = self.driver.memory.write_slice(&value.to_le_bytes(), GuestAddress(address));
    }

    fn register(&self, offset: u64) -> u32 {
        let mut bytes = [0xff; 4];
        self.transport.read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// Brings the device up; the register write with the number in `wrong` has that value instead.
    fn start(&self, wrong: Option<(u8, u32)>) {
        let mut writes = vec![(STATUS, 0), (STATUS, 1), (STATUS, 3)];
        for half in 0..2 {
            writes.extend([(0x24, half), (0x20, (self.features >> (32 * half)) as u32)]);
        }
        writes.push((STATUS, 11));
        for (index, size) in (0..).zip(&self.sizes) {
            writes.extend([(0x30, index), (0x38, u32::from(*size))]);
            for (register, part) in [0x80, 0x90, 0xa0].into_iter().zip(PARTS) {
                writes.extend([(register, (index + 1) * RINGS_SIZE as u32 + part as u32), (register + 4, 0)]);
            }
            writes.push((0x44, 1));
        }
        writes.push((STATUS, 15));
        if let Some((number, value)) = wrong {
            let number = usize::from(number) % writes.len();
            writes[number].1 = value;
        }
        for (register, value) in writes {
            self.transport.write(register, &value.to_le_bytes());
        }
    }

    /// Offers a chain. A polite driver uses no slot twice, no buffer in a ring and no indirect
    /// table.
    fn chain(&mut self, queue: usize, slot: u16, content: Content, buffers: &[Buffer]) {
        let size = self.sizes[queue];
        let head = slot.wrapping_mul(SLOT_SIZE) % size;
        let count = buffers.len().min(size.into());
        if self.polite && self.in_flight.contains_key(&(queue, head)) {
            return;
        }
        let (mut room, mut last) = (0, head);
        for (position, buffer) in (0..).zip(&buffers[..count]) {
            let (mut address, length) = place_of(buffer);
            let mut flags = u16::from(buffer.flags) & !NEXT;
            if self.polite {
                flags &= WRITE;
                address = address.max(BUFFERS);
            }
            flags |= if usize::from(position) + 1 < count { NEXT } else { 0 };
            if flags & WRITE != 0 {
                room += u64::from(length);
            } else if position == 0 && flags & INDIRECT == 0 {
                (0..)
                    .zip(content.words())
                    .for_each(|(index, word)| self.write(address.saturating_add(8 * index), word));
            }
            last = head + position;
            self.driver.write_descriptor(queue, last, address, length, flags, last + 1);
        }
        debug_assert!(last < size, "slots end where the table does");
        self.driver.offer_head(queue, head);
        self.driver.notify(queue);
        self.in_flight.insert((queue, head), room);
    }

    fn process(&mut self, token: u32, ready: EventSet) {
        let broken = self.register(STATUS) & NEEDS_RESET != 0 && self.sizes.len() == 1;
        let before = broken.then(|| self.rings());
        if let Some(worker) = &mut *self.worker.lock().expect("no panic is survived") {
            worker.process(token, ready, &mut Turn::unlimited());
        }
        if let Some(before) = before {
            assert!(before == self.rings(), "a broken ring was touched");
        }
        self.check_returned();
    }

    /// The rings of the first queue.
    fn rings(&self) -> Vec<u8> {
        let mut rings = vec![0; RINGS_SIZE as usize];
        self.driver.memory.read_slice(&mut rings, GuestAddress(RINGS_SIZE)).expect("rings are in memory");
        rings
    }

    fn check_returned(&mut self) {
        if !self.polite {
            return;
        }
        for queue in 0..self.sizes.len() {
            while let Some((head, written)) = self.driver.returned(queue) {
                let room = self.in_flight.remove(&(queue, head));
                let room = room.expect("only a chain that was offered is returned, and only once");
                assert!(u64::from(written) <= room, "{written} bytes were written to {room} writable bytes");
            }
        }
        assert_eq!(self.register(STATUS), 15, "the driver broke no ring");
    }

    pub fn end(mut self) {
        for queue in 0..self.sizes.len() as u32 {
            self.process(queue, EventSet::IN);
        }
        if self.polite && !self.kind.waits() {
            assert!(self.in_flight.is_empty(), "these were never returned: {:?}", self.in_flight);
        }
        if let Some(worker) = &mut *self.worker.lock().expect("no panic is survived") {
            worker.drain();
        }
        self.transport.write(STATUS, &[0; 4]);
        assert!(self.worker.lock().expect("no panic is survived").is_none(), "a worker outlives the reset");
        assert_eq!((self.register(STATUS), self.register(INTERRUPT_STATUS)), (0, 0));
    }
}

fn place_of(buffer: &Buffer) -> (u64, u32) {
    (buffer.wild.unwrap_or(BUFFERS + 32 * u64::from(buffer.at)), buffer.length.bytes())
}
