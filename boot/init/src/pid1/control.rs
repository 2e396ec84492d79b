// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The control port: messages of [`guest_protocol::protocol`] in both directions.

use super::failure::{Failure, Step};
use guest_protocol::protocol::{FrameReader, ToGuest, ToHost, encode};
use guest_protocol::run_spec::RunSpec;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::{Errno, read, write};

const STEP: &str = "talk to the host";

/// The open port and what has arrived of the next message.
pub(crate) struct Control {
    port: OwnedFd,
    reader: FrameReader,
}

impl Control {
    /// `port` blocks until the host has opened its side: the first `send` waits for that.
    pub(crate) fn new(port: OwnedFd) -> Self {
        Self { port, reader: FrameReader::default() }
    }

    /// Sends `message`, waiting for room if it must.
    pub(crate) fn send(&mut self, message: &ToHost) -> Result<(), Failure> {
        let frame = encode(message);
        let mut rest = &frame[..];
        while !rest.is_empty() {
            match write(&self.port, rest) {
                Ok(written) => rest = &rest[written..],
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT)?,
                Err(errno) => return Err(Failure::surroundings(STEP, "write to the control port", errno)),
            }
        }
        Ok(())
    }

    /// The answer to `Hello`. From here on the port does not block.
    pub(crate) fn receive_spec(&mut self) -> Result<RunSpec, Failure> {
        match self.receive()? {
            ToGuest::Spec(spec) => {
                fcntl_setfl(&self.port, OFlags::NONBLOCK).step(STEP, "control port")?;
                Ok(spec)
            }
            _ => Err(Failure::conversation("the first message is not the specification of the workload")),
        }
    }

    /// The next message, waiting for it.
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

    /// The next message if it has arrived whole.
    pub(crate) fn next(&mut self) -> Result<Option<ToGuest>, Failure> {
        self.reader.next().map_err(|_| Failure::conversation("a message of the host cannot be read"))
    }

    /// Takes what has arrived, one piece of it; false if nothing has.
    pub(crate) fn fill(&mut self) -> Result<bool, Failure> {
        // What the driver gives out at once: one buffer of a page.
        let mut bytes = [core::mem::MaybeUninit::<u8>::uninit(); 4096];
        match read(&self.port, &mut bytes) {
            Ok((bytes, _)) if !bytes.is_empty() => {
                self.reader.push(bytes);
                Ok(true)
            }
            Ok(_) => Err(closed()),
            Err(Errno::AGAIN) => Ok(false),
            Err(errno) => Err(Failure::surroundings(STEP, "read from the control port", errno)),
        }
    }

    fn wait(&self, flags: PollFlags) -> Result<(), Failure> {
        let mut port = [PollFd::new(&self.port, flags)];
        poll(&mut port, None).step(STEP, "wait for the control port")?;
        if port[0].revents().intersects(flags) { Ok(()) } else { Err(closed()) }
    }
}

fn closed() -> Failure {
    Failure::conversation("the host has closed the control port")
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.port.as_fd()
    }
}
