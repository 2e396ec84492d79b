// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The ports of the virtio console: `/dev/vportNpM`, where N counts the machine's consoles and M is the number of the
//! port. The driver adds them after the host has told it their names, so they may be missing at first.

use super::failure::{Failure, Step};
use super::files::read_file;
use alloc::format;
use core::mem::MaybeUninit;
use guest_init::protocol::{PORT_CONTROL, PORT_NAMES, PORT_STDERR, PORT_STDIO};
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags, inotify, openat};
use rustix::io::Errno;

const STEP: &str = "open console ports";
/// Consoles that are searched for ours if the first one is not it.
const CONSOLES: u32 = 8;

/// The open ports. The stream ports never block; the control port does at first.
pub(crate) struct ConsolePorts {
    pub(crate) control: OwnedFd,
    pub(crate) stdio: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

impl ConsolePorts {
    /// Opens the ports, waiting for those that are not there yet.
    pub(crate) fn open() -> Result<Self, Failure> {
        let mut appearance = Appearance { watch: None };
        let (console, control) = loop {
            match find_control()? {
                Some(found) => break found,
                None => appearance.wait()?,
            }
        };
        let mut open_stream = |port| loop {
            match open_port(console, port, OFlags::NONBLOCK) {
                Err(Errno::NOENT) => appearance.wait()?,
                outcome => return outcome.step(STEP, PORT_NAMES[port as usize]),
            }
        };
        Ok(Self { control, stdio: open_stream(PORT_STDIO)?, stderr: open_stream(PORT_STDERR)? })
    }
}

/// The console whose port 1 is the control port, and that port. The first console that has a port 1 is nearly always
/// it; its name is asked for only where there is another.
fn find_control() -> Result<Option<(u32, OwnedFd)>, Failure> {
    for console in 0..CONSOLES {
        if console > 0 && !is_control(console) {
            continue;
        }
        match open_port(console, PORT_CONTROL, OFlags::empty()) {
            Ok(port) => return Ok(Some((console, port))),
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(Failure::surroundings(STEP, PORT_NAMES[PORT_CONTROL as usize], errno)),
        }
    }
    Ok(None)
}

fn is_control(console: u32) -> bool {
    let name = read_file(&format!("/sys/class/virtio-ports/vport{console}p{PORT_CONTROL}/name"));
    name.is_ok_and(|name| name.trim_ascii() == PORT_NAMES[PORT_CONTROL as usize].as_bytes())
}

fn open_port(console: u32, port: u32, flags: OFlags) -> Result<OwnedFd, Errno> {
    openat(CWD, format!("/dev/vport{console}p{port}"), OFlags::RDWR | OFlags::CLOEXEC | flags, Mode::empty())
}

/// Waiting for new files in `/dev`.
struct Appearance {
    watch: Option<OwnedFd>,
}

impl Appearance {
    /// Returns at once the first time, when the watch begins: what appeared before it must be looked for again. Later,
    /// when something has appeared since.
    fn wait(&mut self) -> Result<(), Failure> {
        if let Some(watch) = &self.watch {
            let mut events = [MaybeUninit::<u8>::uninit(); 1024];
            rustix::io::read(watch, &mut events).step(STEP, "wait for /dev")?;
            return Ok(());
        }
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC).step(STEP, "watch /dev")?;
        inotify::add_watch(&watch, "/dev", inotify::WatchFlags::CREATE).step(STEP, "watch /dev")?;
        self.watch = Some(watch);
        Ok(())
    }
}
