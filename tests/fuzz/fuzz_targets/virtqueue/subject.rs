// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The device under test: one of each type, with a host side that the fuzzer controls. A wrapper
//! keeps the worker off the event loop, so that it runs when and where the fuzzer calls it.

use devices::event_loop::Source;
use devices::log_sink::LogSink;
use devices::rate_limit::RateLimits;
use devices::turn::Turn;
use devices::virtio::block::{Block, BlockConfig, DiskFile};
use devices::virtio::console::{Console, PortConfig, PortInput, PortMonitor, PortOutput};
use devices::virtio::fs::{Fs, FsConfig};
use devices::virtio::net::{Backend, Net, NetConfig, StreamSocket, Tap};
use devices::virtio::rng::Rng;
use devices::virtio::vsock::{HostSockets, Vsock, VsockConfig};
use devices::virtio::{ActivateError, Activation, DeviceIdentity, VirtioDevice, Worker};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use vmm_sys_util::epoll::EventSet;

/// Bytes of the disk.
const DISK_SIZE: u64 = 1 << 20;
/// Bytes of a pipe: few, so that the console waits for its reader.
const PIPE_SIZE: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Rng,
    Block,
    Console,
    Net,
    Vsock,
    Fs,
}

impl Kind {
    pub fn from_byte(byte: u8) -> Self {
        [Self::Rng, Self::Block, Self::Console, Self::Net, Self::Vsock, Self::Fs][usize::from(byte % 6)]
    }

    /// Whether a chain may have to wait for the host.
    pub fn waits(self) -> bool {
        matches!(self, Self::Console | Self::Net | Self::Vsock)
    }
}

/// The host's ends of the console or the network; none for other devices.
#[derive(Default)]
pub struct Host {
    input: Option<File>,
    output: Option<File>,
}

impl Host {
    /// Sends as much as the pipe accepts.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.input.as_mut().map(|pipe| pipe.write(bytes));
    }

    /// Reads at most a page of the output.
    pub fn read(&mut self) {
        let _ = self.output.as_mut().map(|pipe| pipe.read(&mut [0; PIPE_SIZE]));
    }

    /// Ends the input, or stops reading the output.
    pub fn close(&mut self, input: bool) {
        *(if input { &mut self.input } else { &mut self.output }) = None;
    }
}

/// The worker of an activated device, until the driver resets it.
pub type SharedWorker = Arc<Mutex<Option<Box<dyn Worker>>>>;

/// A device that shares its worker with the fuzzer.
pub struct Wrapper {
    device: Box<dyn VirtioDevice>,
    worker: SharedWorker,
}

/// `variant` selects among the configurations of a device of this type.
pub fn device(kind: Kind, variant: u8) -> (Wrapper, SharedWorker, Host) {
    let mut host = Host::default();
    let device: Box<dyn VirtioDevice> = match kind {
        Kind::Rng => Box::new(Rng::new()),
        Kind::Block => Box::new(disk(variant)),
        Kind::Console => Box::new(console(variant, &mut host)),
        Kind::Net => Box::new(net(variant, &mut host)),
        Kind::Vsock => Box::new(vsock(&mut host)),
        Kind::Fs => Box::new(share(variant)),
    };
    let worker = SharedWorker::default();
    (Wrapper { device, worker: Arc::clone(&worker) }, worker, host)
}

/// A tap with up to four queues, or a stream socket.
fn net(variant: u8, host: &mut Host) -> Net {
    let (backend, network) = if variant & 1 == 0 {
        // The host sends on the first queue.
        let (tap, mut networks) = Tap::pairs(1 + usize::from(variant >> 2 & 3));
        (Backend::from(tap), networks.remove(0))
    } else {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None);
        let (stream, network) = pair.expect("a pair of sockets");
        (StreamSocket::new(stream).expect("descriptors").into(), network)
    };
    let network = File::from(network);
    host.output = network.try_clone().ok();
    host.input = Some(network);
    let mtu = (variant & 2 != 0).then_some(1500);
    Net::open(NetConfig {
        name: "net-0".to_owned(),
        backend,
        internal_host: None,
        mac: [2; 6],
        mtu,
        limits: RateLimits::default(),
    })
    .expect("descriptors")
}

/// With a program of the host that writes what the fuzzer sends.
fn vsock(host: &mut Host) -> Vsock {
    static DEVICES: AtomicU64 = AtomicU64::new(0);
    let name = format!("coracle-fuzz-{}-{}", std::process::id(), DEVICES.fetch_add(1, Ordering::Relaxed));
    let address = SocketAddr::from_abstract_name(name).expect("a short name");
    let listener = UnixListener::bind_addr(&address).expect("a socket");
    listener.set_nonblocking(true).expect("a flag");
    let client = UnixStream::connect_addr(&address).expect("a connection");
    client.set_nonblocking(true).expect("a flag");
    let client = File::from(OwnedFd::from(client));
    host.output = client.try_clone().ok();
    host.input = Some(client);
    // Has no sockets for the guest to connect to.
    let descriptor = File::open("/proc/self").expect("a descriptor");
    let sockets =
        HostSockets { listener: listener.into(), directory: descriptor.into(), is_entered: false, name: "v".into() };
    Vsock::open(VsockConfig { guest_cid: 3, sockets }).expect("descriptors")
}

/// A directory that was removed, so that the fuzzer makes no files.
fn share(variant: u8) -> Fs {
    static DEVICES: AtomicU64 = AtomicU64::new(0);
    let name = format!("coracle-fuzz-share-{}-{}", std::process::id(), DEVICES.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name);
    std::fs::create_dir(&path).expect("a directory");
    let directory = File::open(&path).expect("a descriptor").into();
    std::fs::remove_dir(&path).expect("it is empty");
    let only = (variant & 2 != 0).then(|| c"a".to_owned());
    let read_only = variant & 1 != 0;
    Fs::open(FsConfig { tag: "share0".to_owned(), directory, only, read_only, max_descriptors: 16, closed: [].into() })
        .expect("a directory")
}

fn disk(variant: u8) -> Block {
    let file = |size| {
        let file = File::from(memfd_create("disk", MemfdFlags::CLOEXEC).expect("memory for a disk"));
        file.set_len(size).expect("memory for a disk");
        file
    };
    let (read_only, scratch) = (variant & 1 != 0, variant & 2 != 0);
    // A disk that is only read has three files, one of them empty.
    let parts = if read_only { [0, DISK_SIZE / 4, DISK_SIZE / 4].as_slice() } else { &[] };
    let more = parts.iter().map(|size| DiskFile { file: file(*size), path: "fuzz".into() });
    Block::open(BlockConfig {
        file: file(DISK_SIZE - parts.iter().sum::<u64>()),
        path: "fuzz".into(),
        more: more.collect(),
        read_only,
        scratch,
        serial: "fuzz".to_owned(),
        limits: RateLimits::default(),
    })
    .expect("a new file of whole sectors is a disk")
}

struct NoLog;

impl LogSink for NoLog {
    fn write(&self, _: &[u8]) {}
}

fn console(variant: u8, host: &mut Host) -> Console {
    let pipe = || {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).expect("a pipe");
        let _ = fcntl_setpipe_size(&writer, PIPE_SIZE);
        (reader, writer)
    };
    let port = |name, input, output| {
        let monitor = Arc::new(PortMonitor::new().expect("a descriptor"));
        PortConfig { name, is_console: name == "console", input, output, monitor }
    };
    let (mut input, mut output) = (None, None);
    if variant & 1 == 0 {
        let (reader, writer) = pipe();
        host.input = Some(File::from(writer));
        input = Some(PortInput::new(reader).expect("pipes can be examined"));
    }
    if variant & 2 == 0 {
        let (reader, writer) = pipe();
        host.output = Some(File::from(reader));
        output = Some(PortOutput::descriptor(writer).expect("pipes can be examined"));
    }
    let log = PortOutput::Log(Arc::new(NoLog));
    Console::new(vec![port("console", None, Some(log)), port("stdio", input, output)])
}

impl VirtioDevice for Wrapper {
    fn identity(&self) -> &DeviceIdentity {
        self.device.identity()
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        self.device.read_config(offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        self.device.write_config(offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<Vec<Box<dyn Worker>>, ActivateError> {
        let mut workers = self.device.activate(activation)?;
        let worker = workers.pop().expect("a device has a worker");
        assert!(workers.is_empty(), "these devices have one worker each");
        let before = self.worker.lock().expect("no panic is survived").replace(worker);
        assert!(before.is_none(), "a device is activated while it has a worker");
        Ok(vec![Box::new(StandIn(Arc::clone(&self.worker)))])
    }
}

/// Is on the event loop instead of the worker. When the driver resets the device, both are dropped.
struct StandIn(SharedWorker);

impl Worker for StandIn {
    fn sources(&self) -> Vec<Source> {
        Vec::new()
    }

    fn start(&mut self, _: &mut Turn<'_>) {
        if let Some(worker) = &mut *self.0.lock().expect("no panic is survived") {
            worker.start(&mut Turn::unlimited());
        }
    }

    fn process(&mut self, _: u32, _: EventSet, _: &mut Turn<'_>) {}
}

impl Drop for StandIn {
    fn drop(&mut self) {
        *self.0.lock().expect("no panic is survived") = None;
    }
}
