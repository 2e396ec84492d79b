// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Standard descriptors, and the only messages that PID 1 prints: lines on the kernel's console.
//!
//! The kernel opens 0, 1 and 2 of PID 1 on `/dev/console` if a console exists by then; a virtio
//! console may appear later. Lines are therefore written to a console opened for them, and the
//! three numbers are always kept open, or the next three files that PID 1 opens would become its
//! standard streams.
// Reason for unsafe code: borrowing descriptors 0 to 2 has no safe form without std.
#![allow(unsafe_code)]

use core::fmt::{self, Write};
use rustix::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, fcntl_getfd, write};
use rustix::stdio;

/// Bytes beyond this are cut off.
const MAX_LINE_BYTES: usize = 512;

pub(crate) fn stdin() -> BorrowedFd<'static> {
    // SAFETY: open since `open_missing_descriptors`, or since `execve` in the small init, for the
    // life of the process.
    unsafe { stdio::stdin() }
}

pub(crate) fn stdout() -> BorrowedFd<'static> {
    // SAFETY: as for descriptor 0.
    unsafe { stdio::stdout() }
}

pub(crate) fn stderr() -> BorrowedFd<'static> {
    // SAFETY: as for descriptor 0.
    unsafe { stdio::stderr() }
}

/// Ensures that descriptors 0, 1 and 2 are open.
pub(crate) fn open_missing_descriptors() -> Result<(), Errno> {
    // Either all three are open or none is.
    if fcntl_getfd(stderr()).is_ok() {
        return Ok(());
    }
    for _ in 0..3 {
        let _ = open("/dev/null", OFlags::RDWR, Mode::empty())?.into_raw_fd();
    }
    Ok(())
}

/// Duplicates these to descriptors 0, 1 and 2, for the program that is executed next.
pub(crate) fn replace_standard_descriptors(input: impl AsFd, output: impl AsFd, error: impl AsFd) -> Result<(), Errno> {
    stdio::dup2_stdin(input)?;
    stdio::dup2_stdout(output)?;
    stdio::dup2_stderr(error)
}

/// One line, assembled before it is written, and without the heap, which may be the broken part.
pub(crate) struct Line {
    bytes: [u8; MAX_LINE_BYTES],
    length: usize,
}

impl Line {
    /// `coracle-init: ` and the text.
    pub(crate) fn new(text: fmt::Arguments<'_>) -> Self {
        let mut line = Self { bytes: [0; MAX_LINE_BYTES], length: 0 };
        let _ = writeln!(line, "coracle-init: {text}");
        line
    }

    /// Writes it to the kernel's console.
    pub(crate) fn to_console(&self) {
        let open_device = |path| -> Result<OwnedFd, Errno> {
            open(path, OFlags::WRONLY | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())
        };
        if let Ok(console) = open_device("/dev/console") {
            self.to(console.as_fd());
        } else if let Ok(log) = open_device("/dev/kmsg") {
            // The kernel's log still reaches a console that cannot be opened. Level 3 (error) is
            // printed even with `quiet`.
            let mut record = Self { bytes: [0; MAX_LINE_BYTES], length: 0 };
            let _ = write!(record, "<3>{}", core::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default());
            record.to(log.as_fd());
        }
    }

    /// Writes it to `descriptor`.
    pub(crate) fn to(&self, descriptor: BorrowedFd<'_>) {
        // A failure cannot be reported anywhere.
        let _ = write(descriptor, &self.bytes[..self.length]);
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let free = &mut self.bytes[self.length..];
        let length = text.len().min(free.len());
        free[..length].copy_from_slice(&text.as_bytes()[..length]);
        self.length += length;
        Ok(())
    }
}
