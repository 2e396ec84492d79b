// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The socket device between a driver in memory and real Unix sockets.

use super::host::Host;
use super::packet::*;
use super::table::*;
use super::worker::VsockWorker;
use super::*;
use crate::slot::Slot;
use crate::testing::{Buffer, Driver, Offered};
use crate::turn::Turn;
use crate::virtio::{VirtioDevice, Worker};
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tempfile::TempDir;
use vmm_sys_util::epoll::EventSet;
use zerocopy::{FromBytes, IntoBytes};

const CID: u64 = 3;
const RECEIVE: u32 = 0;
const TRANSMIT: u32 = 1;
const HOST: u32 = 3;
/// Space for data in a buffer of the guest.
const SPACE: u32 = 4096;
/// What the guest says of its own buffer.
const GUEST_BUFFER: u32 = 1 << 20;
/// Where the guest connects to.
const SERVER: Ports = Ports { host: 80, guest: 1000 };

/// Sockets in `directory`, whose listener is `v`.
pub(super) fn sockets(directory: &TempDir) -> HostSockets {
    let listener = UnixListener::bind(directory.path().join("v")).unwrap();
    listener.set_nonblocking(true).unwrap();
    let directory = std::fs::File::open(directory.path()).unwrap();
    HostSockets { listener: listener.into(), directory: directory.into(), is_entered: false, name: "v".into() }
}

struct Bench {
    directory: TempDir,
    driver: Driver,
    worker: VsockWorker,
    counters: Arc<VsockCounters>,
    /// A buffer that the device has.
    offered: Option<Offered>,
}

impl Bench {
    fn new() -> Self {
        Self::with(TimeLimits::default())
    }

    fn with(limits: TimeLimits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let host = Slot::new(Host::new(sockets(&directory)).unwrap());
        let counters = Arc::<VsockCounters>::default();
        let table = Table::new(CID, limits, host.take().unwrap(), Arc::clone(&counters));
        let driver = Driver::new(&[128, 128, 8]);
        let mut worker = VsockWorker::new(driver.activation(0), table);
        worker.start(&mut Turn::unlimited());
        Self { directory, driver, worker, counters, offered: None }
    }

    fn process(&mut self, token: u32) {
        self.worker.process(token, EventSet::IN, &mut Turn::unlimited());
    }

    fn connect(&mut self, line: &str) -> UnixStream {
        let mut client = UnixStream::connect(self.directory.path().join("v")).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client.write_all(line.as_bytes()).unwrap();
        self.process(HOST);
        client
    }

    fn listen(&self, port: u32) -> UnixListener {
        UnixListener::bind(self.directory.path().join(format!("v_{port}"))).unwrap()
    }

    /// Sends a packet of the guest. `false` if the device has not handled it.
    fn send(&mut self, header: Header, data: &[u8]) -> bool {
        let mut buffers = vec![Buffer::Readable(header.as_bytes())];
        if !data.is_empty() {
            buffers.push(Buffer::Readable(data));
        }
        self.driver.offer(1, &buffers);
        self.process(TRANSMIT);
        self.driver.returned(1).is_some()
    }

    fn send_op(&mut self, ports: Ports, op: Op) {
        assert!(self.send(from_guest(ports, op), &[]));
    }

    fn send_data(&mut self, ports: Ports, data: &[u8]) {
        let header = Header { length: (data.len() as u32).into(), ..from_guest(ports, Op::Data) };
        assert!(self.send(header, data));
    }

    /// The next packet for the guest.
    fn packet(&mut self) -> Option<(Header, Vec<u8>)> {
        self.packet_within(SPACE)
    }

    fn packet_within(&mut self, space: u32) -> Option<(Header, Vec<u8>)> {
        let offered = self.offered.take();
        let offered = offered.unwrap_or_else(|| self.driver.offer(0, &[Buffer::Writable(HEADER_SIZE as u32 + space)]));
        self.process(RECEIVE);
        let Some((_, length)) = self.driver.returned(0) else {
            self.offered = Some(offered);
            return None;
        };
        let bytes = self.driver.contents(&offered, 0);
        let (header, data) = Header::read_from_prefix(&bytes[..length as usize]).unwrap();
        assert_eq!((header.source_cid.get(), header.destination_cid.get()), (HOST_CID, CID));
        assert_eq!(header.length.get() as usize, data.len());
        Some((header, data.to_vec()))
    }

    /// The next packet, which has this operation.
    #[track_caller]
    fn expect(&mut self, op: Op) -> (Header, Vec<u8>) {
        let (header, data) = self.packet().expect("a packet");
        assert_eq!(Op::from_number(header.operation.get()), Some(op), "{header:?}");
        (header, data)
    }

    #[track_caller]
    fn expect_nothing(&mut self) {
        assert_eq!(self.packet(), None);
    }

    /// A connection of the guest that the host has accepted.
    fn server(&mut self) -> UnixStream {
        let listener = self.listen(SERVER.host);
        self.send_op(SERVER, Op::Request);
        let (response, _) = self.expect(Op::Response);
        assert_eq!(ports_of(&response), SERVER);
        let server = listener.accept().unwrap().0;
        server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        std::fs::remove_file(self.directory.path().join("v_80")).unwrap();
        // The device has found nothing to read.
        self.expect_nothing();
        server
    }

    /// A connection of the host that the guest has accepted.
    fn client(&mut self, port: u32) -> (UnixStream, Ports) {
        let mut client = self.connect(&format!("CONNECT {port}\n"));
        let (request, _) = self.expect(Op::Request);
        let ports = ports_of(&request);
        assert_eq!(ports.guest, port);
        self.send_op(ports, Op::Response);
        assert_eq!(read(&mut client, 14), format!("OK {}\n", ports.host).as_bytes());
        (client, ports)
    }
}

/// A valid packet of the guest.
fn from_guest(ports: Ports, op: Op) -> Header {
    let to_guest = ports.header(CID, op);
    Header {
        source_cid: to_guest.destination_cid,
        destination_cid: to_guest.source_cid,
        source_port: to_guest.destination_port,
        destination_port: to_guest.source_port,
        buffer_size: GUEST_BUFFER.into(),
        ..to_guest
    }
}

fn shutdown(flags: u32) -> Header {
    Header { flags: flags.into(), ..from_guest(SERVER, Op::Shutdown) }
}

/// Of a packet to the guest.
fn ports_of(header: &Header) -> Ports {
    Ports { host: header.source_port.get(), guest: header.destination_port.get() }
}

fn read(socket: &mut UnixStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    socket.read_exact(&mut bytes).unwrap();
    bytes
}

fn is_closed(socket: &mut UnixStream) -> bool {
    match socket.read(&mut [0]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

#[test]
fn host_connects_to_the_guest_and_both_close_by_halves() {
    let mut bench = Bench::new();
    let mut client = bench.connect("CONNECT 5000\nhi");
    let (request, _) = bench.expect(Op::Request);
    let ports = ports_of(&request);
    assert_eq!((ports.guest, request.socket_type.get()), (5000, TYPE_STREAM));
    assert!(request.buffer_size.get() > 0);
    bench.expect_nothing();
    bench.send_op(ports, Op::Response);
    assert_eq!(read(&mut client, 14), format!("OK {}\n", ports.host).as_bytes());
    assert_eq!(bench.expect(Op::Data).1, b"hi");
    bench.expect_nothing();

    client.shutdown(Shutdown::Write).unwrap();
    bench.process(HOST);
    assert_eq!(bench.expect(Op::Shutdown).0.flags.get(), SHUTDOWN_SEND);
    bench.send_data(ports, b"there");
    assert_eq!(read(&mut client, 5), b"there");
    assert!(bench.send(Header { flags: SHUTDOWN_SEND.into(), ..from_guest(ports, Op::Shutdown) }, &[]));
    assert!(is_closed(&mut client));
    assert!(bench.send(Header { flags: SHUTDOWN_RECEIVE.into(), ..from_guest(ports, Op::Shutdown) }, &[]));
    bench.expect(Op::Reset);
    bench.expect_nothing();
    let counters = [&bench.counters.rx_bytes, &bench.counters.tx_bytes, &bench.counters.connections];
    assert_eq!(counters.map(|counter| counter.load(Relaxed)), [2, 5, 1]);
}

#[test]
fn host_that_is_refused_or_writes_nonsense_is_closed() {
    let mut bench = Bench::new();
    let mut client = bench.connect("CONNECT 5001\n");
    let ports = ports_of(&bench.expect(Op::Request).0);
    bench.send_op(ports, Op::Reset);
    assert!(is_closed(&mut client));
    let mut client = bench.connect("GET / HTTP/1.1\r\n\r\n");
    assert!(is_closed(&mut client));
    // The guest gets a reset if the host has gone before the answer.
    drop(bench.connect("CONNECT 5002\n"));
    bench.expect(Op::Request);
    bench.process(HOST);
    bench.expect(Op::Reset);
    bench.expect_nothing();
}

#[test]
fn guest_connects_to_the_socket_of_the_port_or_is_reset() {
    let mut bench = Bench::new();
    bench.send_op(Ports { host: 81, guest: 7 }, Op::Request);
    assert_eq!(ports_of(&bench.expect(Op::Reset).0), Ports { host: 81, guest: 7 });
    let mut server = bench.server();
    bench.send_data(SERVER, b"from the guest");
    assert_eq!(read(&mut server, 14), b"from the guest");
    server.write_all(b"from the host").unwrap();
    bench.process(HOST);
    assert_eq!(bench.expect(Op::Data).1, b"from the host");
    drop(server);
    bench.process(HOST);
    assert_eq!(bench.expect(Op::Shutdown).0.flags.get(), SHUTDOWN_BOTH);
    bench.send_op(SERVER, Op::Reset);
    bench.expect_nothing();
    assert_eq!(bench.counters.refused.load(Relaxed), 1);
}

/// Each on a connection of its own: packets that a guest must not send.
#[test]
fn invalid_packets_are_dropped_or_end_their_connection_alone() {
    let other = Ports { guest: 2000, ..SERVER };
    let data = from_guest(SERVER, Op::Data);
    // The header, what it is, and whether a reset and the end of the connection follow.
    let table = [
        (Header { source_cid: 4.into(), ..data }, "source", false, false),
        (Header { source_cid: (1 << 32 | CID).into(), ..data }, "high half of the source", false, false),
        (Header { destination_cid: 1.into(), ..data }, "destination", false, false),
        (Header { destination_cid: u64::MAX.into(), ..data }, "high destination", false, false),
        (Header { socket_type: 2.into(), ..data }, "type", true, false),
        (Header { socket_type: 2.into(), ..from_guest(other, Op::Request) }, "type of a request", true, false),
        (Header { socket_type: 0.into(), ..from_guest(SERVER, Op::Reset) }, "type of a reset", false, false),
        (from_guest(other, Op::Data), "data of no connection", true, false),
        (from_guest(other, Op::Response), "response of no connection", true, false),
        (from_guest(other, Op::Reset), "reset of no connection", false, false),
        (Header { operation: 0.into(), ..from_guest(other, Op::Data) }, "operation of no connection", true, false),
        (Header { length: 1.into(), ..data }, "length beyond the packet", true, true),
        (Header { length: u32::MAX.into(), ..data }, "length beyond all", true, true),
        (Header { operation: 0.into(), ..data }, "operation 0", true, true),
        (Header { operation: 8.into(), ..data }, "operation 8", true, true),
        (from_guest(SERVER, Op::Request), "request again", true, true),
        (from_guest(SERVER, Op::Response), "response again", true, true),
        (Header { flags: u32::MAX.into(), ..data }, "flags of data", false, false),
        (Header { forwarded: 1000.into(), ..data }, "more forwarded than was sent", false, false),
        (shutdown(0), "shutdown of nothing", false, false),
        (shutdown(!SHUTDOWN_BOTH), "unknown flags of a shutdown", false, false),
        (Header { length: 77.into(), ..from_guest(SERVER, Op::CreditUpdate) }, "length of an update", false, false),
    ];
    for (header, what, is_reset, is_over) in table {
        let mut bench = Bench::new();
        let mut server = bench.server();
        assert!(bench.send(header, &[]), "{what}");
        if is_reset {
            let (reset, _) = bench.packet().expect(what);
            assert_eq!(reset.operation.get(), Op::Reset as u16, "{what}");
            assert_eq!(ports_of(&reset), Ports::of(&header), "{what}");
            assert_eq!(reset.socket_type, header.socket_type, "{what}");
        }
        assert_eq!(bench.packet(), None, "{what}");
        if is_over {
            assert!(is_closed(&mut server), "{what}");
        } else {
            bench.send_data(SERVER, b"alive");
            assert_eq!(read(&mut server, 5), b"alive", "{what}");
        }
    }
}

#[test]
fn packets_without_a_whole_header_are_counted() {
    let mut bench = Bench::new();
    bench.driver.offer(1, &[Buffer::Readable(&[1; HEADER_SIZE - 1])]);
    bench.driver.offer(1, &[Buffer::Writable(100)]);
    bench.process(TRANSMIT);
    assert!(bench.driver.returned(1).is_some() && bench.driver.returned(1).is_some());
    assert_eq!(bench.counters.tx_dropped.load(Relaxed), 2);
    bench.expect_nothing();
}

#[test]
fn data_after_a_shutdown_is_reset() {
    let mut bench = Bench::new();
    let mut server = bench.server();
    assert!(bench.send(shutdown(SHUTDOWN_SEND), &[]));
    assert!(is_closed(&mut server));
    server.write_all(b"still").unwrap();
    bench.process(HOST);
    assert_eq!(bench.expect(Op::Data).1, b"still");
    bench.send_data(SERVER, b"x");
    bench.expect(Op::Reset);
}

#[test]
fn writes_of_the_host_fail_once_the_guest_receives_no_more() {
    let mut bench = Bench::new();
    let mut server = bench.server();
    assert!(bench.send(shutdown(SHUTDOWN_RECEIVE), &[]));
    assert_eq!(server.write_all(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
    bench.send_data(SERVER, b"but sends");
    assert_eq!(read(&mut server, 9), b"but sends");
}

/// Fills the host's socket and what the guest was granted. Returns what was sent.
fn fill(bench: &mut Bench, granted: u32) -> Vec<u8> {
    let mut sent = Vec::new();
    let mut held = 0;
    while held < granted {
        let length = 32_768.min(granted - held);
        let part: Vec<u8> = (0..length).map(|at| (at % 251) as u8 ^ (sent.len() >> 12) as u8).collect();
        bench.send_data(SERVER, &part);
        sent.extend(&part);
        bench.send_op(SERVER, Op::CreditRequest);
        held = sent.len() as u32 - bench.expect(Op::CreditUpdate).0.forwarded.get();
    }
    sent
}

#[test]
fn host_that_does_not_read_costs_what_was_granted_and_loses_nothing() {
    let mut bench = Bench::new();
    let listener = bench.listen(SERVER.host);
    bench.send_op(SERVER, Op::Request);
    let granted = bench.expect(Op::Response).0.buffer_size.get();
    let mut server = listener.accept().unwrap().0;
    let sent = fill(&mut bench, granted);
    assert_eq!(bench.packet(), None, "no credit while the host does not read");
    let mut received = Vec::new();
    while received.len() < sent.len() {
        received.extend(read(&mut server, 4096.min(sent.len() - received.len())));
        bench.process(HOST);
    }
    assert!(received == sent, "the bytes are the same");
    let updates: Vec<Header> = std::iter::from_fn(|| bench.packet()).map(|(header, _)| header).collect();
    assert!(updates.iter().all(|header| header.operation.get() == Op::CreditUpdate as u16), "{updates:?}");
    let unknown = sent.len() as u32 - updates.last().expect("an update").forwarded.get();
    assert!(unknown < granted / 4, "the guest does not know of {unknown} bytes");
}

#[test]
fn guest_that_sends_more_than_it_was_granted_is_reset() {
    let mut bench = Bench::new();
    let listener = bench.listen(SERVER.host);
    bench.send_op(SERVER, Op::Request);
    let granted = bench.expect(Op::Response).0.buffer_size.get();
    let _server = listener.accept().unwrap();
    fill(&mut bench, granted);
    bench.send_data(SERVER, b"x");
    bench.expect(Op::Reset);
    bench.expect_nothing();
}

#[test]
fn data_of_a_guest_that_is_done_reaches_a_slow_host() {
    for is_reset in [false, true] {
        let mut bench = Bench::new();
        let listener = bench.listen(SERVER.host);
        bench.send_op(SERVER, Op::Request);
        let granted = bench.expect(Op::Response).0.buffer_size.get();
        let mut server = listener.accept().unwrap().0;
        let sent = fill(&mut bench, granted);
        assert!(bench.send(shutdown(SHUTDOWN_BOTH), &[]));
        bench.expect_nothing();
        if is_reset {
            bench.send_op(SERVER, Op::Reset);
            // The guest may use the port again.
            bench.send_op(SERVER, Op::Request);
            bench.expect(Op::Response);
        }
        let mut received = Vec::new();
        while received.len() < sent.len() {
            received.extend(read(&mut server, 4096.min(sent.len() - received.len())));
            bench.process(HOST);
        }
        assert!(received == sent && is_closed(&mut server), "the bytes are the same");
        let last = std::iter::from_fn(|| bench.packet()).last().map(|(header, _)| header.operation.get());
        assert_eq!(last, (!is_reset).then_some(Op::Reset as u16));
    }
}

#[test]
fn data_waits_for_the_credit_of_the_guest() {
    let mut bench = Bench::new();
    let mut server = bench.server();
    assert!(bench.send(Header { buffer_size: 10.into(), ..from_guest(SERVER, Op::CreditUpdate) }, &[]));
    server.write_all(b"0123456789abcdef").unwrap();
    bench.process(HOST);
    assert_eq!(bench.expect(Op::Data).1, b"0123456789");
    bench.expect(Op::CreditRequest);
    bench.expect_nothing();
    let update = Header { buffer_size: 10.into(), forwarded: 4.into(), ..from_guest(SERVER, Op::CreditUpdate) };
    assert!(bench.send(update, &[]));
    assert_eq!(bench.expect(Op::Data).1, b"abcd");
    bench.expect(Op::CreditRequest);
    bench.expect_nothing();
    // A request of the guest's is answered.
    assert!(bench.send(Header { operation: (Op::CreditRequest as u16).into(), ..update }, &[]));
    bench.expect(Op::CreditUpdate);
    bench.expect_nothing();
}

#[test]
fn connections_take_turns_at_the_buffers_of_the_guest() {
    let mut bench = Bench::new();
    let (mut first, one) = bench.client(1);
    let (mut second, other) = bench.client(2);
    first.write_all(&[1; 100]).unwrap();
    second.write_all(&[2; 100]).unwrap();
    bench.process(HOST);
    let order: Vec<Ports> = (0..4).map(|_| ports_of(&bench.packet_within(50).unwrap().0)).collect();
    assert!(order == [one, other, one, other] || order == [other, one, other, one], "{order:?}");
    assert!(bench.packet_within(50).is_none());
}

#[test]
fn buffers_without_space_for_data_are_returned_empty() {
    let mut bench = Bench::new();
    let (mut client, _) = bench.client(1);
    assert_eq!(bench.packet(), None);
    client.write_all(b"x").unwrap();
    bench.process(HOST);
    // The buffer from before.
    assert!(bench.driver.returned(0).is_some());
    bench.offered = None;
    client.write_all(b"y").unwrap();
    bench.driver.offer(0, &[Buffer::Writable(HEADER_SIZE as u32)]);
    bench.process(HOST);
    assert_eq!(bench.driver.returned(0).unwrap().1, 0);
    assert_eq!(bench.expect(Op::Data).1, b"y");
}

#[test]
fn guest_that_takes_no_replies_is_handled_no_further() {
    let mut bench = Bench::new();
    let stray = from_guest(Ports { host: 1, guest: 1 }, Op::Data);
    (0..MAX_REPLIES - 1).for_each(|_| assert!(bench.send(stray, &[])));
    assert!(bench.send(stray, &[]) && !bench.send(stray, &[]) && !bench.send(stray, &[]));
    for _ in 0..MAX_REPLIES {
        bench.expect(Op::Reset);
    }
    // The worker is called for the queue again.
    bench.process(TRANSMIT);
    assert_eq!(std::iter::from_fn(|| bench.driver.returned(1)).count(), 2);
    bench.expect(Op::Reset);
    bench.expect(Op::Reset);
    bench.expect_nothing();
}

#[test]
fn connections_and_their_buffers_are_bounded() {
    let mut bench = Bench::new();
    let listener = bench.listen(SERVER.host);
    let mut granted = Vec::new();
    for guest in 0..MAX_CONNECTIONS as u32 {
        let ports = Ports { guest, ..SERVER };
        bench.send_op(ports, Op::Request);
        // The host's ends are closed, which the device does not look at here.
        drop(listener.accept().unwrap());
        // The connections before send their shutdowns.
        let mut packets = std::iter::from_fn(|| bench.packet_within(1)).map(|(header, _)| header);
        let response = packets.find(|header| header.operation.get() == Op::Response as u16).expect("an answer");
        assert_eq!(ports_of(&response), ports);
        granted.push(response.buffer_size.get());
    }
    while bench.packet_within(1).is_some() {}
    assert!(granted.iter().sum::<u32>() <= MAX_BUFFER_BYTES, "{granted:?}");
    assert!(granted[0] == 256 << 10 && granted.iter().all(|size| *size >= 16 << 10), "{granted:?}");
    bench.send_op(Ports { guest: u32::MAX, ..SERVER }, Op::Request);
    assert_eq!(bench.packet_within(1).unwrap().0.operation.get(), Op::Reset as u16);
    // So is a connection of the host.
    let mut client = bench.connect("CONNECT 1\n");
    assert!(is_closed(&mut client));
}

#[test]
fn slow_clients_are_bounded_in_number_and_time() {
    let limits = TimeLimits { greeting: Duration::from_millis(200), ..TimeLimits::default() };
    let mut bench = Bench::with(limits);
    let mut slow: Vec<UnixStream> = (0..MAX_GREETINGS).map(|_| bench.connect("CONNECT 5")).collect();
    // Waits in the listener's queue.
    let _waiting = bench.connect("CONNECT 6\n");
    bench.expect_nothing();
    // Until the time of the others is up.
    slow.iter().for_each(|client| client.set_nonblocking(true).unwrap());
    while !slow.iter_mut().all(is_closed) {
        bench.process(HOST);
        std::thread::yield_now();
    }
    bench.expect(Op::Request);
}

#[test]
fn guest_that_does_not_answer_in_time_is_reset() {
    let mut bench = Bench::with(TimeLimits { answer: Duration::from_millis(10), ..TimeLimits::default() });
    let mut client = bench.connect("CONNECT 5000\n");
    bench.expect(Op::Request);
    let reset = loop {
        bench.process(HOST);
        match bench.packet() {
            Some((header, _)) => break header,
            None => std::thread::yield_now(),
        }
    };
    assert_eq!(reset.operation.get(), Op::Reset as u16);
    assert!(is_closed(&mut client));
}

#[test]
fn lingering_connection_ends_with_its_time() {
    let mut bench = Bench::with(TimeLimits { linger: Duration::from_millis(10), ..TimeLimits::default() });
    let listener = bench.listen(SERVER.host);
    bench.send_op(SERVER, Op::Request);
    let granted = bench.expect(Op::Response).0.buffer_size.get();
    let mut server = listener.accept().unwrap().0;
    let sent = fill(&mut bench, granted);
    assert!(bench.send(shutdown(SHUTDOWN_BOTH), &[]));
    bench.send_op(SERVER, Op::Reset);
    std::thread::sleep(Duration::from_millis(20));
    bench.process(HOST);
    let mut received = Vec::new();
    server.read_to_end(&mut received).unwrap();
    assert!(received.len() < sent.len() && sent.starts_with(&received));
}

#[test]
fn reset_of_the_device_closes_connections_and_keeps_the_socket() {
    let directory = tempfile::tempdir().unwrap();
    let mut device = Vsock::open(VsockConfig { guest_cid: 77, sockets: sockets(&directory) }).unwrap();
    let mut cid = [0xff; 12];
    device.read_config(0, &mut cid);
    assert_eq!(cid, [77, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    for _ in 0..2 {
        let driver = Driver::new(&device.identity().queue_sizes);
        let mut worker = device.activate(driver.activation(0)).unwrap().remove(0);
        worker.start(&mut Turn::unlimited());
        let mut client = UnixStream::connect(directory.path().join("v")).unwrap();
        client.write_all(b"CONNECT 1\n").unwrap();
        worker.process(HOST, EventSet::IN, &mut Turn::unlimited());
        drop(worker);
        assert!(is_closed(&mut client));
    }
}
