// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A host descriptor of any type that is read or written without blocking and without changing its
//! open file. Opened on `main`, used on the `io` event loop.
//!
//! `O_NONBLOCK` must not be set on an inherited descriptor: it belongs to the open file, which the
//! parent and its other children use too. Hence, by type:
//!
//! | type | how |
//! |---|---|
//! | socket | a flag of each call |
//! | regular file, block device, memory device, already non-blocking | unchanged; it does not block for long |
//! | pipe, FIFO, terminal | opened again through `/proc`, non-blocking: a new open file that is not shared |
//! | the same where that is not permitted, anything else | `poll` before each call, which moves little |

use super::super::chain::{Reader, Writer};
use super::super::guest_io::{self, Channel};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags, fcntl_getfl, fstat, major, minor, open};
use rustix::termios::isatty;
use std::io::{ErrorKind, Result};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

/// A pipe that is ready for writing accepts this many bytes at once (`PIPE_BUF`).
const MAX_PIPE_BYTES: usize = 4096;
/// A terminal that is ready for writing accepts at least this many, in practice.
const MAX_TERMINAL_BYTES: usize = 64;
/// Major device number of `/dev/null`, `/dev/zero`, `/dev/full` and the like.
const MEMORY_DEVICES: u32 = 1;
/// Device number of `/dev/ptmx`: opening it again makes another terminal.
const PTY_MASTER: (u32, u32) = (5, 2);

#[derive(Debug)]
pub(super) struct HostStream {
    descriptor: OwnedFd,
    channel: Channel,
    /// Calls `poll` before each call, which moves at most this many bytes.
    max_bytes: Option<usize>,
}

impl HostStream {
    pub(super) fn for_reading(descriptor: OwnedFd) -> Result<Self> {
        Self::adopt(descriptor, OFlags::RDONLY)
    }

    pub(super) fn for_writing(descriptor: OwnedFd) -> Result<Self> {
        Self::adopt(descriptor, OFlags::WRONLY)
    }

    fn adopt(descriptor: OwnedFd, direction: OFlags) -> Result<Self> {
        let status = fstat(&descriptor)?;
        let device = (major(status.st_rdev), minor(status.st_rdev));
        let kind = FileType::from_raw_mode(status.st_mode);
        let free = |descriptor, channel| Ok(Self { descriptor, channel, max_bytes: None });
        match kind {
            FileType::Socket => return free(descriptor, Channel::Socket),
            FileType::RegularFile | FileType::BlockDevice | FileType::Directory => {
                return free(descriptor, Channel::Stream);
            }
            FileType::CharacterDevice if device.0 == MEMORY_DEVICES => return free(descriptor, Channel::Stream),
            _ if fcntl_getfl(&descriptor)?.contains(OFlags::NONBLOCK) => return free(descriptor, Channel::Stream),
            _ => {}
        }
        let terminal = isatty(&descriptor);
        let reopen = kind == FileType::Fifo || terminal && device != PTY_MASTER;
        let flags = direction | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let path = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
        match reopen.then(|| open(path, flags, Mode::empty())) {
            Some(Ok(own)) => free(own, Channel::Stream),
            _ => {
                let max_bytes = Some(if terminal { MAX_TERMINAL_BYTES } else { MAX_PIPE_BYTES });
                Ok(Self { descriptor, channel: Channel::Stream, max_bytes })
            }
        }
    }

    /// Reads what there is into `writer`. 0 is the end.
    ///
    /// # Errors
    /// `WouldBlock`, or it cannot be read.
    pub(super) fn read(&self, writer: &mut Writer<'_>) -> Result<usize> {
        self.poll(PollFlags::IN)?;
        guest_io::read_some(self.descriptor.as_fd(), self.channel, writer)
    }

    /// Writes as much of `reader` as is accepted.
    ///
    /// # Errors
    /// `WouldBlock`, or it cannot be written.
    pub(super) fn write(&self, reader: &mut Reader<'_>) -> Result<usize> {
        self.poll(PollFlags::OUT)?;
        guest_io::write_some(self.descriptor.as_fd(), self.channel, reader, self.max_bytes.unwrap_or(usize::MAX))
    }

    fn poll(&self, direction: PollFlags) -> Result<()> {
        if self.max_bytes.is_none() {
            return Ok(());
        }
        let mut descriptors = [PollFd::new(&self.descriptor, direction)];
        match rustix::io::retry_on_intr(|| poll(&mut descriptors, Some(&Timespec::default())))? {
            0 => Err(ErrorKind::WouldBlock.into()),
            // Ready, or hung up, which the call returns.
            _ => Ok(()),
        }
    }
}

impl AsRawFd for HostStream {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}

#[cfg(test)]
#[path = "host_stream_tests.rs"]
mod tests;
