// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The table against the devices in this process, and against devices with planted faults.

use devices::GuestMemory;
use devices::bus::BusDevice;
use devices::event_loop::EventLoop;
use devices::interrupt::Interrupt;
use devices::log_sink::LogSink;
use devices::planted::{PlantedFault, plant};
use devices::rate_limit::RateLimits;
use devices::testing::event;
use devices::virtio::VirtioDevice;
use devices::virtio::block::{Block, BlockConfig, DiskFile};
use devices::virtio::console::{Console, PortConfig, PortMonitor, PortOutput};
use devices::virtio::mmio::MmioTransport;
use devices::virtio::net::{Net, NetConfig, Tap};
use devices::virtio::rng::Rng;
use devices::virtio::vsock::{HostSockets, Vsock, VsockConfig};
use hostile_guest::{ARENA_SIZE, Machine, Verdict, block_errors, run};
use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;
use vm_memory::{Bytes, GuestAddress};

const ARENA: u64 = 0x10_0000;
const MEMORY_SIZE: u64 = ARENA + ARENA_SIZE + 0x10_0000;
/// Calls of one wait that only yield; the others sleep for 100 µs.
const YIELDS: u32 = 200;
/// Until a chain counts as lost: 2 s, and with a planted fault a tenth of it.
const MAX_ATTEMPTS: u32 = 20_000;

struct NoLog;

impl LogSink for NoLog {
    fn write(&self, _: &[u8]) {}
}

/// The devices behind their transports, with one event loop.
struct InProcess {
    memory: GuestMemory,
    transports: Vec<MmioTransport>,
    max_attempts: u32,
    _events: EventLoop,
}

fn devices() -> Vec<Box<dyn VirtioDevice>> {
    let file = |size| {
        let file = tempfile::tempfile().unwrap();
        file.set_len(size).unwrap();
        file
    };
    // A disk of files of these sizes; it is written if there is one.
    let block = |sizes: &[u64]| BlockConfig {
        file: file(sizes[0]),
        path: "hostile".into(),
        more: sizes[1..].iter().map(|size| DiskFile { file: file(*size), path: "hostile".into() }).collect(),
        read_only: sizes.len() > 1,
        scratch: true,
        serial: "hostile".to_owned(),
        limits: RateLimits::default(),
    };
    let port = PortConfig {
        name: "console",
        is_console: true,
        input: None,
        output: Some(PortOutput::Log(Arc::new(NoLog))),
        monitor: Arc::new(PortMonitor::new().unwrap()),
    };
    let net = |queues| NetConfig {
        name: format!("net-{queues}"),
        backend: Tap::pairs(queues).0.into(),
        internal_host: None,
        mac: [2; 6],
        mtu: None,
        limits: RateLimits::default(),
    };
    // The listener stays when its directory is gone.
    let directory = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(directory.path().join("v")).unwrap();
    listener.set_nonblocking(true).unwrap();
    let sockets = HostSockets {
        listener: listener.into(),
        directory: File::open(directory.path()).unwrap().into(),
        is_entered: false,
        name: "v".into(),
    };
    vec![
        Box::new(Rng::new()),
        Box::new(Block::open(block(&[512, 0, 1 << 20, 512])).unwrap()),
        Box::new(Block::open(block(&[1 << 20])).unwrap()),
        Box::new(Console::new(vec![port])),
        Box::new(Net::open(net(1)).unwrap()),
        Box::new(Net::open(net(3)).unwrap()),
        Box::new(Vsock::open(VsockConfig { guest_cid: 3, sockets }).unwrap()),
    ]
}

impl InProcess {
    fn new(max_attempts: u32) -> Self {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY_SIZE as usize)]).unwrap();
        let events = EventLoop::spawn("io").unwrap();
        let transport = |device: Box<dyn VirtioDevice>| {
            let queue_events = device.identity().queue_sizes.iter().map(|_| event()).collect();
            let interrupt = Interrupt::new(event());
            MmioTransport::new(device, memory.clone(), interrupt, queue_events, vec![events.handle()])
        };
        let transports = devices().into_iter().map(transport).collect();
        Self { memory, transports, max_attempts, _events: events }
    }
}

impl Machine for InProcess {
    fn devices(&self) -> usize {
        self.transports.len()
    }

    fn arena(&self) -> u64 {
        ARENA
    }

    fn memory_end(&self) -> u64 {
        MEMORY_SIZE
    }

    fn read(&mut self, device: usize, offset: u64, width: usize) -> u64 {
        let mut bytes = [0xff; 8];
        self.transports[device].read(offset, &mut bytes[..width]);
        let mut value = [0; 8];
        value[..width].copy_from_slice(&bytes[..width]);
        u64::from_le_bytes(value)
    }

    fn write(&mut self, device: usize, offset: u64, width: usize, value: u64) {
        self.transports[device].write(offset, &value.to_le_bytes()[..width]);
    }

    fn store(&mut self, address: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(address)).unwrap();
    }

    fn load(&mut self, address: u64, bytes: &mut [u8]) {
        self.memory.read_slice(bytes, GuestAddress(address)).unwrap();
    }

    fn wait(&mut self, attempt: u32) -> bool {
        if attempt < YIELDS {
            std::thread::yield_now();
        } else {
            std::thread::sleep(Duration::from_micros(100));
        }
        attempt < self.max_attempts
    }
}

/// Number of cases, and a line for each that did not pass. The first `limit` of these end it.
fn table(max_attempts: u32, limit: usize) -> (usize, Vec<String>) {
    let (mut cases, mut lines) = (0, Vec::new());
    let outcome = run(&mut InProcess::new(max_attempts), 1, &mut |case, verdict| {
        cases += 1;
        if !matches!(verdict, Verdict::Passed) {
            lines.push(format!("{case:?}: {verdict:?}"));
        }
        if lines.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    if let Err(error) = outcome {
        lines.push(format!("before the first case: {error:?}"));
    }
    (cases, lines)
}

/// One test, because a planted fault is there for the whole process.
#[test]
fn devices_pass_every_case_and_planted_faults_are_found() {
    let (cases, lines) = table(MAX_ATTEMPTS, usize::MAX);
    assert!(lines.is_empty(), "{} of {cases}:\n{}", lines.len(), lines.join("\n"));
    assert!(cases >= 800, "{cases} cases");
    println!("{cases} cases");
    // A disk that does not fail keeps what is written.
    let outcome = block_errors(&mut InProcess::new(MAX_ATTEMPTS), 1, 2000).unwrap();
    assert_eq!((outcome.requests, outcome.errors, outcome.wrong_sectors), (2000, 0, 0));
    for fault in PlantedFault::ALL {
        plant(Some(fault));
        let (_, lines) = table(MAX_ATTEMPTS / 10, 1);
        plant(None);
        assert!(!lines.is_empty(), "{fault:?} was not found");
        println!("{fault:?}: {}", lines[0]);
    }
}
