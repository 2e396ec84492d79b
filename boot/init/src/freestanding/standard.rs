// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Standard descriptors. The kernel opens 0, 1 and 2 of PID 1 on `/dev/console`, and nothing here closes them, so lines
//! of PID 1 itself go where the kernel's messages go.
// Reason for unsafe code: borrowing descriptors 0 to 2 has no safe form without std.
#![allow(unsafe_code)]

use core::fmt::{self, Write};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::io::Errno;
use rustix::stdio;

/// Descriptor 0.
pub(crate) fn stdin() -> BorrowedFd<'static> {
    // SAFETY: the standard descriptors stay open as long as the process lives.
    unsafe { stdio::stdin() }
}

/// Descriptor 2, as something to write text to.
pub(crate) struct Stderr;

impl Write for Stderr {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            // SAFETY: the standard descriptors stay open as long as the process lives.
            let written = rustix::io::write(unsafe { stdio::stderr() }, rest).map_err(|_| fmt::Error)?;
            rest = rest.get(written..).filter(|_| written > 0).ok_or(fmt::Error)?;
        }
        Ok(())
    }
}

/// Makes these descriptors 0, 1 and 2, to be inherited by the program that is executed next.
pub(crate) fn replace_standard_descriptors(input: impl AsFd, output: impl AsFd, error: impl AsFd) -> Result<(), Errno> {
    stdio::dup2_stdin(input)?;
    stdio::dup2_stdout(output)?;
    stdio::dup2_stderr(error)
}
