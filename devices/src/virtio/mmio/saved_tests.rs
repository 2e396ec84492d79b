// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A device that is used, saved, restored into a new transport over a copy of the memory, and used
//! on; and the states that are rejected.

use super::*;
use crate::bus::{Action, BusDevice};
use crate::event_loop::{EventLoop, Source};
use crate::testing::{Buffer, Driver};
use crate::turn::Turn;
use crate::virtio::queue::{Taken, Virtqueue};
use crate::virtio::{ActivateError, Activation, DeviceIdentity, DeviceKind, VirtioDevice, Worker, rng};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use vmm_sys_util::epoll::EventSet;

const LATER: u16 = 0;
const STATUS: u64 = 0x70;
const QUEUE_READY: u64 = 0x44;
const INTERRUPT_STATUS: u64 = 0x60;

static KIND: DeviceKind = DeviceKind {
    device_id: 42,
    kernel_option: "CONFIG_HOLDER",
    kernel_module: "holder",
    optional: false,
    savable: true,
    counters: None,
};
static UNSAVABLE: DeviceKind = DeviceKind { savable: false, ..KIND };

/// Returns what it is sent, but keeps chains that begin with `l` while `holds` is set. Its state is
/// the number of chains that it has taken.
struct Holder {
    identity: DeviceIdentity,
    holds: Arc<AtomicBool>,
    taken: Arc<std::sync::Mutex<u8>>,
}

struct HolderWorker {
    queues: Vec<Virtqueue>,
    held: Vec<Taken>,
    holds: Arc<AtomicBool>,
    taken: Arc<std::sync::Mutex<u8>>,
}

impl VirtioDevice for Holder {
    fn identity(&self) -> &DeviceIdentity {
        &self.identity
    }

    fn read_config(&self, _: u64, _: &mut [u8]) {}

    fn activate(&mut self, activation: Activation) -> Result<Vec<Box<dyn Worker>>, ActivateError> {
        let (holds, taken) = (Arc::clone(&self.holds), Arc::clone(&self.taken));
        Ok(vec![Box::new(HolderWorker { queues: activation.queues, held: Vec::new(), holds, taken })])
    }

    fn save(&self) -> Vec<u8> {
        vec![*self.taken.lock().unwrap()]
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), InvalidDeviceState> {
        let &[taken] = state else { return Err(InvalidDeviceState) };
        *self.taken.lock().unwrap() = taken;
        Ok(())
    }
}

impl Worker for HolderWorker {
    fn sources(&self) -> Vec<Source> {
        vec![Source::event(self.queues[0].queue_event(), 0)]
    }

    fn start(&mut self, turn: &mut Turn<'_>) {
        self.process(0, EventSet::IN, turn);
    }

    fn process(&mut self, _: u32, _: EventSet, _: &mut Turn<'_>) {
        while let Some(taken) = self.queues[0].take() {
            *self.taken.lock().unwrap() += 1;
            let mut first = [0];
            taken.chain().readable.read_exact(&mut first).unwrap();
            if first == *b"l" && self.holds.load(Ordering::SeqCst) {
                self.held.push(taken);
            } else {
                self.queues[0].finish(taken, 0);
            }
        }
    }
}

struct Machine {
    driver: Driver,
    transport: MmioTransport,
    holds: Arc<AtomicBool>,
    taken: Arc<std::sync::Mutex<u8>>,
    _events: EventLoop,
}

fn machine_of(driver: Driver, kind: &'static DeviceKind) -> Machine {
    let identity =
        DeviceIdentity { kind, name: "holder".to_owned(), features: 1 << 5, queue_sizes: vec![8, 16], counters: None };
    let (holds, taken) = (Arc::new(AtomicBool::new(true)), Arc::default());
    let device = Box::new(Holder { identity, holds: Arc::clone(&holds), taken: Arc::clone(&taken) });
    let events = EventLoop::spawn("io").unwrap();
    let (memory, interrupt) = (driver.memory.clone(), driver.interrupt.clone());
    let transport = MmioTransport::new(device, memory, interrupt, driver.queue_events(), vec![events.handle()]);
    Machine { driver, transport, holds, taken, _events: events }
}

fn machine() -> Machine {
    machine_of(Driver::new(&[8, 16]), &KIND)
}

impl Machine {
    /// A new machine over a copy of this one's memory, with a new device.
    fn copy(&self) -> Self {
        machine_of(self.driver.copy(), &KIND)
    }

    fn read(&self, register: u64) -> u32 {
        let mut value = [0xff; 4];
        self.transport.read(register, &mut value);
        u32::from_le_bytes(value)
    }

    fn write(&self, register: u64, value: u32) {
        assert_eq!(self.transport.write(register, &value.to_le_bytes()), Action::None);
    }

    fn save(&self) -> TransportState {
        let text = serde_json::to_vec(&self.transport.save().unwrap()).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// Offers a chain that is returned at once, again and again, until the available ring has been
    /// written several times.
    fn go_round(&mut self, head: u16) {
        for _ in 0..20 {
            self.driver.offer_head(0, head);
            self.driver.notify(0);
            assert_eq!(self.driver.wait_returned(0), (head, 0));
        }
    }
}

/// A machine whose device keeps heads 1 and 0, in this order, and has returned others since.
fn used() -> Machine {
    let mut machine = machine();
    machine.driver.start(&machine.transport, 0);
    for head in [LATER, 1, 2] {
        let address = machine.driver.allocate(1);
        let byte = if head == 2 { b"n" } else { b"l" };
        vm_memory::Bytes::write_slice(&machine.driver.memory, byte, vm_memory::GuestAddress(address)).unwrap();
        machine.driver.write_descriptor(0, head, address, 1, 0, 0);
    }
    machine.driver.offer_head(0, 1);
    machine.driver.offer_head(0, LATER);
    machine.go_round(2);
    machine
}

#[test]
fn restored_device_finishes_what_was_in_flight_in_its_order() {
    let machine = used();
    let state = machine.save();
    let mut copy = machine.copy();
    copy.holds.store(false, Ordering::SeqCst);
    copy.transport.restore(&state).unwrap();
    assert!(copy.transport.is_claimed());
    // 22 before, and the two again.
    assert_eq!(*copy.taken.lock().unwrap(), 24);
    assert_eq!([copy.driver.wait_returned(0), copy.driver.wait_returned(0)], [(1, 0), (LATER, 0)]);
    copy.go_round(2);
    assert_eq!(copy.driver.returned(0), None);
}

#[test]
fn saved_machine_runs_on_like_its_copy() {
    let mut machine = used();
    let state = machine.save();
    machine.driver.offer_head(0, 2);
    machine.driver.notify(0);
    // The loop has run everything before this; without a worker nothing was returned.
    machine._events.handle().run(|| ()).unwrap();
    assert_eq!(machine.driver.returned(0), None);
    machine.transport.restore(&state).unwrap();
    assert_eq!(machine.driver.wait_returned(0), (2, 0));
    // Saved again, it still has both in flight.
    let again = machine.save();
    let in_flight = |state: &TransportState| state.active.as_ref().unwrap().positions[0].in_flight.clone();
    assert_eq!((in_flight(&state), in_flight(&again)), (vec![1, LATER], vec![1, LATER]));
    machine.holds.store(false, Ordering::SeqCst);
    machine.transport.restore(&again).unwrap();
    assert_eq!([machine.driver.wait_returned(0), machine.driver.wait_returned(0)], [(1, 0), (LATER, 0)]);
}

#[test]
fn restored_interrupt_is_raised_again_and_reset_works() {
    let machine = used();
    machine.driver.interrupt.signal_config();
    let state = machine.save();
    let mut copy = machine.copy();
    copy.transport.restore(&state).unwrap();
    assert_eq!(copy.read(INTERRUPT_STATUS), 3);
    assert_eq!(copy.read(0xfc), 1);
    assert!(copy.driver.interrupts() >= 1);
    copy.write(STATUS, 0);
    copy.driver.reset();
    copy.driver.start(&copy.transport, 0);
    let offered = copy.driver.offer(0, &[Buffer::Readable(b"n")]);
    assert_eq!(copy.driver.wait_returned(0), (offered.head, 0));
}

#[test]
fn driver_continues_a_setup_that_it_had_begun() {
    let machine = machine();
    [0, 1, 3].into_iter().for_each(|status| machine.write(STATUS, status));
    machine.write(0x24, 1);
    machine.write(0x20, 1);
    machine.write(STATUS, 11);
    machine.write(0x30, 1);
    machine.write(0x38, 4);
    for (register, address) in [(0x80, 0x2_0000), (0x90, 0x2_5000), (0xa0, 0x2_8000)] {
        machine.write(register, address);
    }
    let state = machine.save();
    assert_eq!(state.active, None);
    let copy = machine.copy();
    copy.transport.restore(&state).unwrap();
    assert!(!copy.transport.is_claimed());
    copy.write(QUEUE_READY, 1);
    copy.write(STATUS, 15);
    assert_eq!((copy.read(STATUS), copy.read(QUEUE_READY)), (15, 1));
    assert_eq!(copy.save().queues[1].descriptor_table, 0x2_0000);
}

#[test]
fn broken_queue_stays_broken_until_the_reset() {
    let mut machine = used();
    machine.driver.offer_head(0, 8);
    machine.driver.notify(0);
    while machine.read(STATUS) & 64 == 0 {
        std::thread::yield_now();
    }
    let state = machine.save();
    let mut copy = machine.copy();
    copy.holds.store(false, Ordering::SeqCst);
    copy.transport.restore(&state).unwrap();
    assert_eq!((copy.read(STATUS), copy.driver.returned(0)), (15 | 64, None));
    copy.driver.reset();
    copy.driver.start(&copy.transport, 0);
    let offered = copy.driver.offer(0, &[Buffer::Readable(b"n")]);
    assert_eq!(copy.driver.wait_returned(0), (offered.head, 0));
}

#[test]
fn device_that_could_not_be_activated_is_restored_without_workers() {
    let machine = machine();
    [0, 1, 3].into_iter().for_each(|status| machine.write(STATUS, status));
    machine.write(0x24, 1);
    machine.write(0x20, 1);
    machine.write(STATUS, 11);
    machine.write(QUEUE_READY, 1);
    machine.write(STATUS, 15);
    let state = machine.save();
    let copy = machine.copy();
    copy.transport.restore(&state).unwrap();
    assert_eq!((copy.read(STATUS), state.active), (15 | 64, None));
}

#[test]
fn device_of_a_type_with_other_state_is_saved_only_unused() {
    let mut machine = machine_of(Driver::new(&[8, 16]), &UNSAVABLE);
    assert_eq!(machine.save().status, 0);
    machine.driver.start(&machine.transport, 0);
    let error = machine.transport.save().unwrap_err().to_string();
    assert_eq!(error, "holder: devices of this type cannot be saved while they are in use");
    let offered = machine.driver.offer(0, &[Buffer::Readable(b"n")]);
    assert_eq!(machine.driver.wait_returned(0), (offered.head, 0));
}

#[test]
fn impossible_states_are_rejected_and_change_nothing() {
    fn active(state: &mut TransportState) -> &mut Active {
        state.active.as_mut().unwrap()
    }
    type Change = fn(&mut TransportState);
    let cases: [(Change, &str); 24] = [
        (|state| state.device_id = 1, "the state is of device type 1"),
        (|state| state.queues.truncate(1), "the state has other queues"),
        (|state| state.queues[0].max_size = 16, "the state has other queues"),
        (|state| state.status = 7, "driver status 0x7 is impossible"),
        (|state| state.status = 15 | 64, "driver status 0x4f is impossible"),
        (|state| state.interrupt_status = 4, "interrupt status 0x4 is impossible"),
        (|state| state.driver_features |= 1 << 6, "driver features 0x130000040 are impossible, or not offered here"),
        (|state| state.driver_features = 0, "driver features 0x0 are impossible, or not offered here"),
        (|state| state.has_features_beyond = true, "driver features 0x130000000 are impossible, or not offered here"),
        (|state| state.status = 1, "driver features 0x130000000 are impossible, or not offered here"),
        (|state| state.status = 3, "queue 0 is configured too early"),
        (|state| state.status = 11, "driver status 0xb contradicts whether the device is in use"),
        (|state| state.active = None, "driver status 0xf contradicts whether the device is in use"),
        (|state| state.queues[0].size = 3, "queue 0: size 3 is not a power of two within the device's limit"),
        (|state| state.queues[0].size = 16, "queue 0: size 16 is not a power of two within the device's limit"),
        (
            |state| state.queues[1].used_ring = 1 << 40,
            "queue 1: used ring at 0x10000000000 is misaligned or not in memory",
        ),
        (
            |state| state.queues[1].available_ring = 0x2_5001,
            "queue 1: available ring at 0x25001 is misaligned or not in memory",
        ),
        (|state| state.queues[0].ready = false, "queue 0: a queue that is not configured has been used"),
        (|state| active(state).positions.truncate(1), "the state has other queues"),
        (
            |state| active(state).positions[0].in_flight[0] = 8,
            "queue 0: descriptor 8 in flight is outside the table, or listed twice",
        ),
        (
            |state| active(state).positions[0].in_flight[0] = LATER,
            "queue 0: descriptor 0 in flight is outside the table, or listed twice",
        ),
        (|state| active(state).positions[1].is_broken = true, "queue 1 is broken and the device needs no reset"),
        (|state| active(state).device.clear(), "the state of the device is invalid"),
        (|state| active(state).device.push(0), "the state of the device is invalid"),
    ];
    let machine = used();
    let good = machine.save();
    let mut copy = machine.copy();
    for (change, expected) in cases {
        let mut state = good.clone();
        change(&mut state);
        let error = copy.transport.restore(&state).unwrap_err().to_string();
        assert_eq!(error, format!("holder: {expected}"));
        assert_eq!((copy.read(STATUS), copy.read(INTERRUPT_STATUS)), (0, 0), "{expected}");
    }
    copy.transport.restore(&good).unwrap();
    copy.go_round(2);
}

#[test]
fn state_with_unknown_or_missing_fields_is_not_parsed() {
    let text = serde_json::to_string(&used().save()).unwrap();
    assert!(serde_json::from_str::<TransportState>(&text.replacen('{', "{\"more\":1,", 1)).is_err());
    assert!(serde_json::from_str::<TransportState>(&text.replacen("\"status\":15,", "", 1)).is_err());
}

#[test]
fn rng_is_used_saved_restored_and_used_on() {
    let transport = |driver: &Driver, events: &EventLoop| {
        let (memory, interrupt) = (driver.memory.clone(), driver.interrupt.clone());
        MmioTransport::new(Box::new(rng::Rng::new()), memory, interrupt, driver.queue_events(), vec![events.handle()])
    };
    let events = EventLoop::spawn("io").unwrap();
    let mut driver = Driver::new(&[16]);
    let source = transport(&driver, &events);
    driver.start(&source, 0);
    let first = driver.offer(0, &[Buffer::Writable(32)]);
    assert_eq!(driver.wait_returned(0), (first.head, 32));
    let state = source.save().unwrap();
    // Not seen by the device before it was saved.
    let second = driver.offer(0, &[Buffer::Writable(32)]);
    let mut copies = [driver.copy(), driver.copy()];
    let bytes = copies.each_mut().map(|driver| {
        let transport = transport(driver, &events);
        transport.restore(&state).unwrap();
        assert_eq!(driver.wait_returned(0), (second.head, 32));
        driver.contents(&second, 0)
    });
    assert_ne!(bytes[0], bytes[1]);
}
