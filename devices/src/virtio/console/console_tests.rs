// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The console device behind its transport and on an event loop, with real pipes, sockets and files
//! on the host side.

use super::*;
use crate::event_loop::EventLoop;
use crate::log_sink::LogSink;
use crate::testing::{Buffer, Driver, Offered};
use crate::virtio::VirtioDevice;
use crate::virtio::mmio::MmioTransport;
use rustix::fs::{OFlags, fcntl_getfl};
use std::fs::File;
use std::io::{Read, Write, pipe};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

const CONSOLE: usize = 1;
const CONTROL_TO_DRIVER: usize = 2;
const CONTROL_FROM_DRIVER: usize = 3;
const STDIN: usize = 6;
const STDOUT: usize = 7;
const STDERR: usize = 9;
const MULTIPORT: u64 = 1 << 1;

#[derive(Default)]
struct Log(Mutex<Vec<u8>>);

impl LogSink for Log {
    fn write(&self, text: &[u8]) {
        self.0.lock().unwrap().extend_from_slice(text);
    }
}

struct Bench {
    driver: Driver,
    transport: MmioTransport,
    events: EventLoop,
    log: Arc<Log>,
    control: UnixStream,
    monitors: [Arc<PortMonitor>; 4],
}

/// A console with the four ports of the product, whose stdio port has these ends.
fn bench(input: Option<PortInput>, output: Option<PortOutput>, error: Option<PortOutput>) -> Bench {
    let bench = unused_bench(Driver::new, input, output, error);
    bench.driver.start(&bench.transport, MULTIPORT);
    bench
}

/// The same, before the driver that `driver` makes for the queues is started.
fn unused_bench(
    driver: impl FnOnce(&[u16]) -> Driver,
    input: Option<PortInput>,
    output: Option<PortOutput>,
    error: Option<PortOutput>,
) -> Bench {
    let (control, ours) = UnixStream::pair().unwrap();
    let log = Arc::new(Log::default());
    let monitors: [Arc<PortMonitor>; 4] = std::array::from_fn(|_| Arc::new(PortMonitor::new().unwrap()));
    let port = |number: usize, name, input, output| PortConfig {
        name,
        is_console: number == 0,
        input,
        output,
        monitor: monitors[number].clone(),
    };
    let control_input = PortInput::new(ours.try_clone().unwrap().into()).unwrap();
    let control_output = PortOutput::descriptor(ours.into()).unwrap();
    let console = Console::new(vec![
        port(0, "console", None, Some(PortOutput::Log(log.clone()))),
        port(1, "control", Some(control_input), Some(control_output)),
        port(2, "stdio", input, output),
        port(3, "stderr", None, error),
    ]);
    let driver = driver(&console.identity().queue_sizes);
    let events = EventLoop::spawn("io").unwrap();
    let (memory, interrupt) = (driver.memory.clone(), driver.interrupt.clone());
    let transport =
        MmioTransport::new(Box::new(console), memory, interrupt, driver.queue_events(), vec![events.handle()]);
    Bench { driver, transport, events, log, control, monitors }
}

fn reading(descriptor: impl Into<std::os::fd::OwnedFd>) -> Option<PortInput> {
    Some(PortInput::new(descriptor.into()).unwrap())
}

fn writing(descriptor: impl Into<std::os::fd::OwnedFd>) -> Option<PortOutput> {
    Some(PortOutput::descriptor(descriptor.into()).unwrap())
}

impl Bench {
    fn send_control(&mut self, port: u32, event: u16, value: u16) {
        let message = [&port.to_le_bytes()[..], &event.to_le_bytes(), &value.to_le_bytes()].concat();
        let offered = self.driver.offer(CONTROL_FROM_DRIVER, &[Buffer::Readable(&message)]);
        assert_eq!(self.driver.wait_returned(CONTROL_FROM_DRIVER).0, offered.head);
    }

    /// The next control message: port, event, value, name.
    fn receive_control(&mut self) -> (u32, u16, u16, String) {
        let offered = self.driver.offer(CONTROL_TO_DRIVER, &[Buffer::Writable(64)]);
        let (_, length) = self.driver.wait_returned(CONTROL_TO_DRIVER);
        let bytes = &self.driver.contents(&offered, 0)[..length as usize];
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let port = u32::from_le_bytes(bytes[..4].try_into().unwrap());
        (port, half(4), half(6), String::from_utf8(bytes[8..].to_vec()).unwrap())
    }

    fn send(&mut self, queue: usize, bytes: &[u8]) -> Offered {
        self.driver.offer(queue, &[Buffer::Readable(bytes)])
    }

    /// What arrives in the next buffer of a port.
    fn receive(&mut self, queue: usize, room: u32) -> Vec<u8> {
        let offered = self.driver.offer(queue, &[Buffer::Writable(room)]);
        let (_, length) = self.driver.wait_returned(queue);
        let mut bytes = self.driver.contents(&offered, 0);
        bytes.truncate(length as usize);
        bytes
    }

    /// Until the monitor of `port` signals.
    fn wait_signal(&self, port: usize) {
        use std::os::fd::AsRawFd;
        let epoll = Epoll::new().unwrap();
        let event = &self.monitors[port].event;
        epoll.ctl(ControlOperation::Add, event.as_raw_fd(), EpollEvent::new(EventSet::IN, 0)).unwrap();
        assert_eq!(epoll.wait(10_000, &mut [EpollEvent::default()]).unwrap(), 1, "no signal in ten seconds");
        event.read().unwrap();
    }
}

#[test]
fn console_announces_each_port_its_name_and_that_it_is_open() {
    let mut bench = bench(None, None, None);
    bench.send_control(0, 0, 1);
    let added: Vec<_> = (0..4).map(|_| bench.receive_control()).collect();
    assert_eq!(added, [0, 1, 2, 3].map(|port| (port, 1, 1, String::new())));
    bench.send_control(0, 3, 1);
    bench.send_control(2, 3, 1);
    let messages: Vec<_> = (0..5).map(|_| bench.receive_control()).collect();
    let expected = [(0, 4, ""), (0, 7, "console"), (0, 6, ""), (2, 7, "stdio"), (2, 6, "")];
    assert_eq!(messages, expected.map(|(port, event, name)| (port, event, 1, name.to_owned())));
}

#[test]
fn control_messages_without_a_reader_are_bounded() {
    let mut bench = bench(None, None, None);
    for _ in 0..200 {
        bench.send_control(1, 3, 1);
        bench.send_control(4, 3, 1);
        bench.send_control(u32::MAX, 6, 1);
    }
    let answers = (0..256).map(|_| bench.receive_control().0).filter(|&port| port == 1).count();
    assert_eq!(answers, 256);
    bench.driver.offer(CONTROL_TO_DRIVER, &[Buffer::Writable(64)]);
    bench.send_control(0, 9, 9);
    assert_eq!(bench.driver.returned(CONTROL_TO_DRIVER), None);
}

#[test]
fn console_keeps_its_outputs_apart_and_counts_them() {
    let (mut output, stdout) = pipe().unwrap();
    let (mut error, stderr) = pipe().unwrap();
    let mut bench = bench(None, writing(stdout), writing(stderr));
    for (queue, text) in [(CONSOLE, "kernel"), (STDOUT, "out"), (STDERR, "err"), (STDOUT, "put")] {
        bench.send(queue, text.as_bytes());
        bench.driver.wait_returned(queue);
    }
    let (mut out, mut err) = ([0; 6], [0; 3]);
    output.read_exact(&mut out).unwrap();
    error.read_exact(&mut err).unwrap();
    assert_eq!((&out, &err, &bench.log.0.lock().unwrap()[..]), (b"output", b"err", &b"kernel"[..]));
    assert_eq!(bench.monitors.each_ref().map(|monitor| monitor.to_host.load(SeqCst)), [6, 0, 6, 3]);
}

#[test]
fn drain_passes_on_what_is_in_the_ring() {
    let mut bench = bench(None, None, None);
    // Without a notification, as when the last vCPU stopped between the two.
    let place = bench.driver.allocate(5);

    bench.driver.memory.write_slice(b"panic", GuestAddress(place)).unwrap();
    bench.driver.write_descriptor(CONSOLE, 0, place, 5, 0, 0);
    bench.driver.offer_head(CONSOLE, 0);
    bench.events.stop();
    assert_eq!(*bench.log.0.lock().unwrap(), b"panic");
}

#[test]
fn control_socket_carries_both_directions_of_an_open_port() {
    let mut bench = bench(None, None, None);
    bench.send(5, b"hello");
    let mut hello = [0; 5];
    bench.control.read_exact(&mut hello).unwrap();
    assert_eq!(&hello, b"hello");
    bench.control.write_all(b"spec").unwrap();
    bench.send_control(1, 6, 1);
    assert_eq!(bench.receive(4, 64), b"spec");
    assert_eq!(bench.monitors[1].to_guest.load(SeqCst), 4);
}

#[test]
fn input_is_read_only_for_open_ports_and_into_their_buffers() {
    let (stdin, mut typed) = pipe().unwrap();
    let original = stdin.try_clone().unwrap();
    let mut bench = bench(reading(stdin), None, None);
    typed.write_all(b"hello world").unwrap();
    let first = bench.driver.offer(STDIN, &[Buffer::Writable(5)]);
    bench.send_control(1, 6, 1);
    assert_eq!(bench.driver.returned(STDIN), None);
    bench.send_control(2, 6, 1);
    assert_eq!(bench.driver.wait_returned(STDIN), (first.head, 5));
    assert_eq!(bench.driver.contents(&first, 0), b"hello");
    assert_eq!(bench.receive(STDIN, 64), b" world");
    let last = bench.driver.offer(STDIN, &[Buffer::Writable(64)]);
    typed.write_all(b"!").unwrap();
    assert_eq!(bench.driver.wait_returned(STDIN), (last.head, 1));
    assert!(!bench.monitors[2].input_ended.load(SeqCst));
    bench.driver.offer(STDIN, &[Buffer::Writable(64)]);
    drop(typed);
    bench.wait_signal(2);
    assert!(bench.monitors[2].input_ended.load(SeqCst));
    assert_eq!(bench.monitors[2].to_guest.load(SeqCst), 12);
    assert!(!fcntl_getfl(&original).unwrap().contains(OFlags::NONBLOCK));
}

#[test]
fn regular_file_and_empty_device_are_read_to_their_end() {
    let mut file = tempfile::tempfile().unwrap();
    let bytes: Vec<u8> = (0..100_000u32).map(|i| (i % 253) as u8).collect();
    file.write_all(&bytes).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    let mut bench = bench(reading(file), None, None);
    bench.send_control(2, 6, 1);
    let mut received = Vec::new();
    while received.len() < bytes.len() {
        received.extend(bench.receive(STDIN, 4096));
    }
    assert_eq!(received, bytes);
    bench.driver.offer(STDIN, &[Buffer::Writable(1)]);
    bench.wait_signal(2);

    let mut bench = self::bench(reading(File::open("/dev/null").unwrap()), None, None);
    bench.driver.offer(STDIN, &[Buffer::Writable(1)]);
    bench.send_control(2, 6, 1);
    bench.wait_signal(2);
    assert_eq!(bench.monitors[2].to_guest.load(SeqCst), 0);
}

#[test]
fn full_pipe_stops_its_own_port_and_loses_nothing() {
    let (mut output, stdout) = pipe().unwrap();
    let original = stdout.try_clone().unwrap();
    let mut bench = bench(None, writing(stdout), None);
    let block: Vec<u8> = (0..50_000u32).map(|i| (i % 251) as u8).collect();
    // A pipe holds 64 KiB: the second block stops in the middle.
    let offered = [0, 1, 2].map(|_| bench.send(STDOUT, &block).head);
    assert_eq!(bench.driver.wait_returned(STDOUT), (offered[0], 0));
    let control = bench.send(5, b"still alive").head;
    assert_eq!(bench.driver.wait_returned(5), (control, 0));
    assert_eq!(bench.driver.returned(STDOUT), None);
    let mut received = vec![0; 3 * block.len()];
    output.read_exact(&mut received).unwrap();
    assert_eq!(received, block.repeat(3));
    assert_eq!([bench.driver.wait_returned(STDOUT).0, bench.driver.wait_returned(STDOUT).0], offered[1..]);
    assert!(!fcntl_getfl(&original).unwrap().contains(OFlags::NONBLOCK));
}

#[test]
fn output_without_a_reader_is_dropped_counted_and_signalled() {
    let (output, stdout) = pipe().unwrap();
    let mut bench = bench(None, writing(stdout), None);
    let block = [b'x'; 50_000];
    bench.send(STDOUT, &block);
    bench.driver.wait_returned(STDOUT);
    bench.send(STDOUT, &block);
    drop(output);
    bench.driver.wait_returned(STDOUT);
    bench.wait_signal(2);
    assert!(bench.monitors[2].output_closed.load(SeqCst));
    bench.send(STDOUT, b"without a reader ");
    bench.driver.wait_returned(STDOUT);
    assert_eq!(bench.monitors[2].to_host.load(SeqCst), 100_017);
}

#[test]
fn full_device_closes_the_output_and_the_guest_goes_on() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut bench = bench(None, writing(full), None);
    bench.send(STDOUT, b"lost");
    bench.driver.wait_returned(STDOUT);
    assert!(bench.monitors[2].output_closed.load(SeqCst));
    assert_eq!(bench.monitors[2].to_host.load(SeqCst), 4);
}

#[test]
fn monitor_signals_at_the_requested_count() {
    let mut bench = bench(None, None, None);
    assert!(!bench.monitors[2].announce_at(7));
    bench.send(STDOUT, b"1234");
    bench.driver.wait_returned(STDOUT);
    assert!(bench.monitors[2].event.read().is_err());
    bench.send(STDOUT, b"567");
    bench.wait_signal(2);
    assert!(bench.monitors[2].announce_at(7));
}

#[test]
fn chain_above_the_bound_is_returned_unread() {
    let mut bench = bench(None, None, None);
    bench.driver.write_descriptor(STDOUT, 0, 0x20_0000, (1 << 20) + 1, 0, 0);
    bench.driver.offer_head(STDOUT, 0);
    bench.driver.notify(STDOUT);
    assert_eq!(bench.driver.wait_returned(STDOUT), (0, 0));
    assert_eq!(bench.monitors[2].to_host.load(SeqCst), 0);
}

#[test]
fn restored_console_goes_on_with_open_ports_and_half_a_chain() {
    let (mut output, stdout) = pipe().unwrap();
    let (stdin, mut typed) = pipe().unwrap();
    let mut bench = bench(reading(stdin), writing(stdout), None);
    bench.send_control(2, 6, 1);
    let block: Vec<u8> = (0..50_000u32).map(|i| (i % 251) as u8).collect();
    let offered = [0, 1].map(|_| bench.send(STDOUT, &block).head);
    assert_eq!(bench.driver.wait_returned(STDOUT), (offered[0], 0));
    let waiting = bench.driver.offer(STDIN, &[Buffer::Writable(64)]);
    // Handled, and its two messages wait for buffers, the port's name first.
    bench.send_control(3, 3, 1);
    let state = bench.transport.save().unwrap();

    // The copy has other ends on the host.
    let (mut other_output, stdout) = pipe().unwrap();
    let (stdin, mut other_typed) = pipe().unwrap();
    let driver = bench.driver.copy();
    let mut copy = unused_bench(|_| driver, reading(stdin), writing(stdout), None);
    copy.transport.restore(&state).unwrap();
    assert_eq!(copy.driver.wait_returned(STDOUT), (offered[1], 0));
    let sent = bench.monitors[2].to_host.load(SeqCst) as usize;
    assert!((block.len()..2 * block.len()).contains(&sent), "{sent}");
    let mut rest = vec![0; 2 * block.len() - sent];
    other_output.read_exact(&mut rest).unwrap();
    assert_eq!(rest, block.repeat(2)[sent..]);
    other_typed.write_all(b"to the copy").unwrap();
    assert_eq!(copy.driver.wait_returned(STDIN), (waiting.head, 11));
    assert_eq!(copy.driver.contents(&waiting, 0)[..11], *b"to the copy");
    assert_eq!(copy.receive_control(), (3, 7, 1, "stderr".to_owned()));
    assert_eq!(copy.receive_control(), (3, 6, 1, String::new()));

    // The machine that was saved goes on with its own.
    bench.transport.restore(&state).unwrap();
    let mut all = vec![0; 2 * block.len()];
    output.read_exact(&mut all).unwrap();
    assert_eq!(all, block.repeat(2));
    assert_eq!(bench.driver.wait_returned(STDOUT), (offered[1], 0));
    typed.write_all(b"here").unwrap();
    assert_eq!(bench.driver.wait_returned(STDIN), (waiting.head, 4));
}

#[test]
fn reset_after_a_restore_closes_the_ports() {
    let (stdin, mut typed) = pipe().unwrap();
    let mut bench = bench(reading(stdin), None, None);
    bench.send_control(2, 6, 1);
    let state = bench.transport.save().unwrap();
    bench.transport.restore(&state).unwrap();
    bench.driver.reset();
    bench.driver.start(&bench.transport, MULTIPORT);
    typed.write_all(b"early").unwrap();
    let offered = bench.driver.offer(STDIN, &[Buffer::Writable(64)]);
    bench.send_control(1, 6, 1);
    assert_eq!(bench.driver.returned(STDIN), None);
    bench.send_control(2, 6, 1);
    assert_eq!(bench.driver.wait_returned(STDIN), (offered.head, 5));
}
