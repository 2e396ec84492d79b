// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The device under test: one of each kind, with a host side that the fuzzer can move, and a shell around it that keeps
//! the worker off the event loop, so that it runs where and when the fuzzer says.

use devices::event_loop::Source;
use devices::log_sink::LogSink;
use devices::virtio::block::{Block, BlockConfig};
use devices::virtio::console::{Console, PortConfig, PortInput, PortMonitor, PortOutput};
use devices::virtio::net::{Net, NetConfig, Tap};
use devices::virtio::rng::Rng;
use devices::virtio::{ActivateError, Activation, DeviceIdentity, VirtioDevice, Worker};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use std::fs::File;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};
use vmm_sys_util::epoll::EventSet;

/// Bytes of the disk.
const DISK_SIZE: u64 = 1 << 20;
/// Bytes of a pipe: few, so that the console has to wait for its reader.
const PIPE_SIZE: usize = 4096;

/// Which device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Rng,
    Block,
    Console,
    Net,
}

impl Kind {
    pub fn from_byte(byte: u8) -> Self {
        [Self::Rng, Self::Block, Self::Console, Self::Net][usize::from(byte % 4)]
    }

    /// Whether a chain may have to wait for the host.
    pub fn waits(self) -> bool {
        self == Self::Console
    }
}

/// The host's ends of the console; none for other devices.
#[derive(Default)]
pub struct Host {
    sends: Option<File>,
    takes: Option<File>,
}

impl Host {
    /// Sends as much as there is room for.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.sends.as_mut().map(|pipe| pipe.write(bytes));
    }

    /// Takes at most a page of what came out.
    pub fn take(&mut self) {
        let _ = self.takes.as_mut().map(|pipe| pipe.read(&mut [0; PIPE_SIZE]));
    }

    /// Ends the input, or stops reading the output.
    pub fn close(&mut self, input: bool) {
        *(if input { &mut self.sends } else { &mut self.takes }) = None;
    }
}

/// The worker of an activated device, until the driver resets it.
pub type Place = Arc<Mutex<Option<Box<dyn Worker>>>>;

/// A device that leaves its worker in a place where the fuzzer finds it.
pub struct Shell {
    device: Box<dyn VirtioDevice>,
    place: Place,
}

/// `variant` picks among the ways to configure a device of this kind.
pub fn device(kind: Kind, variant: u8) -> (Shell, Place, Host) {
    let mut host = Host::default();
    let device: Box<dyn VirtioDevice> = match kind {
        Kind::Rng => Box::new(Rng::new()),
        Kind::Block => Box::new(disk(variant)),
        Kind::Console => Box::new(console(variant, &mut host)),
        Kind::Net => Box::new(Net::new(NetConfig { tap: Tap::unconnected(), mac: [2; 6] })),
    };
    let place = Place::default();
    (Shell { device, place: Arc::clone(&place) }, place, host)
}

fn disk(variant: u8) -> Block {
    let file = File::from(memfd_create("disk", MemfdFlags::CLOEXEC).expect("memory for a disk"));
    file.set_len(DISK_SIZE).expect("memory for a disk");
    let (read_only, scratch) = (variant & 1 != 0, variant & 2 != 0);
    Block::open(BlockConfig { file, path: "fuzz".into(), read_only, scratch, serial: "fuzz".to_owned() })
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
        host.sends = Some(File::from(writer));
        input = Some(PortInput::new(reader).expect("pipes can be examined"));
    }
    if variant & 2 == 0 {
        let (reader, writer) = pipe();
        host.takes = Some(File::from(reader));
        output = Some(PortOutput::descriptor(writer).expect("pipes can be examined"));
    }
    let log = PortOutput::Log(Arc::new(NoLog));
    Console::new(vec![port("console", None, Some(log)), port("stdio", input, output)])
}

impl VirtioDevice for Shell {
    fn identity(&self) -> &DeviceIdentity {
        self.device.identity()
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        self.device.read_config(offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<Box<dyn Worker>, ActivateError> {
        let worker = self.device.activate(activation)?;
        let before = self.place.lock().expect("no panic is survived").replace(worker);
        assert!(before.is_none(), "a device is activated while it has a worker");
        Ok(Box::new(Deputy(Arc::clone(&self.place))))
    }
}

/// On the event loop in place of the worker; goes when the driver resets the device, and takes the worker along.
struct Deputy(Place);

impl Worker for Deputy {
    fn sources(&self) -> Vec<Source> {
        Vec::new()
    }

    fn start(&mut self) {
        if let Some(worker) = &mut *self.0.lock().expect("no panic is survived") {
            worker.start();
        }
    }

    fn process(&mut self, _: u32, _: EventSet) {}
}

impl Drop for Deputy {
    fn drop(&mut self) {
        *self.0.lock().expect("no panic is survived") = None;
    }
}
