// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The control port: messages of [`guest_protocol::protocol`] in both directions.

use super::failure::{Failure, Step};
use guest_protocol::protocol::{FrameReader, MAX_TO_GUEST, ToGuest, ToHost, encode};
use guest_protocol::run_spec::RunSpec;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::{Errno, read, write};

const STEP: &str = "talk to the host";
/// The driver returns at most one buffer of a page at a time.
const READ_BUF_SIZE: usize = 4096;

pub(crate) struct Control {
    port: OwnedFd,
    reader: FrameReader,
}

impl Control {
    /// `port` is blocking: the first `send` waits until the host has opened its side.
    pub(crate) fn new(port: OwnedFd) -> Self {
        Self { port, reader: FrameReader::new(MAX_TO_GUEST) }
    }

    /// Sends `message`, waiting for free space if necessary.
    pub(crate) fn send(&mut self, message: &ToHost) -> Result<(), Failure> {
        let frame = encode(message);
        let mut rest = &frame[..];
        while !rest.is_empty() {
            match write(&self.port, rest) {
                Ok(written) => rest = &rest[written..],
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT)?,
                Err(errno) => return Err(Failure::setup(STEP, "write to the control port", errno)),
            }
        }
        Ok(())
    }

    /// Receives the answer to `Hello`, and makes the port non-blocking.
    pub(crate) fn receive_spec(&mut self) -> Result<RunSpec, Failure> {
        match self.receive()? {
            ToGuest::Spec(spec) => {
                fcntl_setfl(&self.port, OFlags::NONBLOCK).step(STEP, "control port")?;
                Ok(spec)
            }
            _ => Err(Failure::protocol("the first message of the host is not a RunSpec")),
        }
    }

    /// Waits for the next message.
    pub(crate) fn receive(&mut self) -> Result<ToGuest, Failure> {
        loop {
            if let Some(message) = self.next()? {
                return Ok(message);
            }
            if !self.fill()? {
                self.wait(PollFlags::IN)?;
            }
        }
    }

    /// Returns the next message if it is complete.
    pub(crate) fn next(&mut self) -> Result<Option<ToGuest>, Failure> {
        self.reader.next().map_err(|_| Failure::protocol("invalid message from the host"))
    }

    /// Reads once; returns false if nothing has arrived.
    pub(crate) fn fill(&mut self) -> Result<bool, Failure> {
        let mut bytes = [core::mem::MaybeUninit::<u8>::uninit(); READ_BUF_SIZE];
        match read(&self.port, &mut bytes) {
            Ok((bytes, _)) if !bytes.is_empty() => {
                self.reader.push(bytes);
                Ok(true)
            }
            Ok(_) => Err(closed()),
            Err(Errno::AGAIN) => Ok(false),
            Err(errno) => Err(Failure::setup(STEP, "read from the control port", errno)),
        }
    }

    fn wait(&self, flags: PollFlags) -> Result<(), Failure> {
        let mut port = [PollFd::new(&self.port, flags)];
        poll(&mut port, None).step(STEP, "wait for the control port")?;
        if port[0].revents().intersects(flags) { Ok(()) } else { Err(closed()) }
    }
}

fn closed() -> Failure {
    Failure::protocol("the host has closed the control port")
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.port.as_fd()
    }
}
