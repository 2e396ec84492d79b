// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The ports of the virtio console: `/dev/vportNpM`, console N, port M. The driver adds them one by
//! one as it exchanges messages with the host, so they may be missing at first.

use super::failure::{Failure, Step};
use super::files::read_file;
use super::uevents::Uevents;
use alloc::format;
use guest_protocol::protocol::{PORT_CONTROL, PORT_NAMES, PORT_STDERR, PORT_STDIO};
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

const STEP: &str = "open console ports";
/// Consoles that are searched for the control port.
const MAX_CONSOLES: u32 = 8;

/// The open ports. The stream ports never block, the control port does at first.
pub(crate) struct ConsolePorts {
    pub(crate) control: OwnedFd,
    pub(crate) stdio: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

impl ConsolePorts {
    /// Opens the ports, waiting for those that do not exist yet.
    pub(crate) fn open() -> Result<Self, Failure> {
        // A node in `/dev` is not enough: the driver creates it before it accepts an open, and fails
        // with `ENXIO` in between. Its last uevent is a change of the port's device, when the host has
        // named the port.
        let mut uevents = Uevents::default();
        let (console, control) = loop {
            match find_control()? {
                Some(found) => break found,
                None => uevents.wait(STEP)?,
            }
        };
        let mut open_stream = |port| loop {
            match open_port(console, port, OFlags::NONBLOCK) {
                Err(Errno::NOENT | Errno::NXIO) => uevents.wait(STEP)?,
                outcome => return outcome.step(STEP, PORT_NAMES[port as usize]),
            }
        };
        Ok(Self { control, stdio: open_stream(PORT_STDIO)?, stderr: open_stream(PORT_STDERR)? })
    }
}

/// Returns the console whose port 1 is the control port, and that port. This is nearly always the
/// first console with a port 1, so the name is checked only for the others.
fn find_control() -> Result<Option<(u32, OwnedFd)>, Failure> {
    for console in 0..MAX_CONSOLES {
        if console > 0 && !is_control(console) {
            continue;
        }
        match open_port(console, PORT_CONTROL, OFlags::empty()) {
            Ok(port) => return Ok(Some((console, port))),
            Err(Errno::NOENT | Errno::NXIO) => {}
            Err(errno) => return Err(Failure::setup(STEP, PORT_NAMES[PORT_CONTROL as usize], errno)),
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
