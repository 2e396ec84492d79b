// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Standard descriptors, and the one way in which PID 1 talks to people: lines on the kernel's console.
//!
//! The kernel opens 0, 1 and 2 of PID 1 on `/dev/console`, if there is a console by then: a virtio console may come
//! later. So lines are written to a console opened for them, and the numbers are kept occupied in any case, or the next
//! three files that PID 1 opens would be its standard streams.
// Reason for unsafe code: borrowing descriptors 0 to 2 has no safe form without std.
#![allow(unsafe_code)]

use core::fmt::{self, Write};
use rustix::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, fcntl_getfd, write};
use rustix::stdio;

/// Longest line of PID 1, in bytes; the rest of a longer one is lost.
const LINE_BYTES: usize = 512;

/// Descriptor 0.
pub(crate) fn stdin() -> BorrowedFd<'static> {
    // SAFETY: open since `occupy`, or since `execve` in the small init, as long as the process lives.
    unsafe { stdio::stdin() }
}

/// Descriptor 2.
pub(crate) fn stderr() -> BorrowedFd<'static> {
    // SAFETY: as for descriptor 0.
    unsafe { stdio::stderr() }
}

/// Makes sure that descriptors 0, 1 and 2 are open.
pub(crate) fn occupy() -> Result<(), Errno> {
    // All three are, or none is.
    if fcntl_getfd(stderr()).is_ok() {
        return Ok(());
    }
    for _ in 0..3 {
        let _ = open("/dev/null", OFlags::RDWR, Mode::empty())?.into_raw_fd();
    }
    Ok(())
}

/// Makes these descriptors 0, 1 and 2, to be inherited by the program that is executed next.
pub(crate) fn replace_standard_descriptors(input: impl AsFd, output: impl AsFd, error: impl AsFd) -> Result<(), Errno> {
    stdio::dup2_stdin(input)?;
    stdio::dup2_stdout(output)?;
    stdio::dup2_stderr(error)
}

/// One line, put together before it is written, and without the heap: the heap may be what is broken.
pub(crate) struct Line {
    bytes: [u8; LINE_BYTES],
    length: usize,
}

impl Line {
    /// `coracle-init: ` and the text.
    pub(crate) fn new(text: fmt::Arguments<'_>) -> Self {
        let mut line = Self { bytes: [0; LINE_BYTES], length: 0 };
        let _ = writeln!(line, "coracle-init: {text}");
        line
    }

    /// Writes it where the kernel's messages go.
    pub(crate) fn to_console(&self) {
        let open_device = |path| -> Result<OwnedFd, Errno> {
            open(path, OFlags::WRONLY | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())
        };
        if let Ok(console) = open_device("/dev/console") {
            self.to(console.as_fd());
        } else if let Ok(log) = open_device("/dev/kmsg") {
            // Without a console that can be opened, the kernel's log still leads to one: as an error (3), whatever
            // `quiet` says.
            let mut record = Self { bytes: [0; LINE_BYTES], length: 0 };
            let _ = write!(record, "<3>{}", core::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default());
            record.to(log.as_fd());
        }
    }

    /// Writes it to `descriptor`.
    pub(crate) fn to(&self, descriptor: BorrowedFd<'_>) {
        // Nobody is left to hear of a failure.
        let _ = write(descriptor, &self.bytes[..self.length]);
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = &mut self.bytes[self.length..];
        let length = text.len().min(room.len());
        room[..length].copy_from_slice(&text.as_bytes()[..length]);
        self.length += length;
        Ok(())
    }
}
