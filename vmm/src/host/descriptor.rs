// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Descriptors that the parent process left open for us (`fd:N`, `fd=N`). Runs before anything else is opened, so that a
//! number which the parent did not open is nobody's.
#![allow(unsafe_code, reason = "a number from the command line becomes a descriptor")]

use rustix::fs::OFlags;
use rustix::io::Errno;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

/// A number is of no use as a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DescriptorError {
    /// Nothing is open there.
    #[error("no file is open as descriptor {0}")]
    Closed(i32),
    /// The host has no more of them.
    #[error("cannot duplicate the descriptor")]
    Duplicate(#[source] Errno),
    /// Open for reading only, or not for input and output at all.
    #[error("the file that is open as descriptor {0} cannot be written to")]
    NotWritable(i32),
}

/// The file that was open as `number` when the process started; closed when another program is executed.
///
/// # Errors
/// There is none, or no descriptor is left.
pub(crate) fn inherited(number: RawFd) -> Result<OwnedFd, DescriptorError> {
    if number < 0 {
        return Err(DescriptorError::Closed(number));
    }
    // SAFETY: the number is not -1, and is used for one system call that fails cleanly if nothing is open there.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    match rustix::io::fcntl_dupfd_cloexec(borrowed, 3) {
        Err(Errno::BADF) => Err(DescriptorError::Closed(number)),
        Err(error) => Err(DescriptorError::Duplicate(error)),
        Ok(owned) => {
            // Children of ours need neither of the two. It is open, so this cannot fail.
            let _ = rustix::io::fcntl_setfd(borrowed, rustix::io::FdFlags::CLOEXEC);
            Ok(owned)
        }
    }
}

/// The same, for writing.
///
/// # Errors
/// As [`inherited`], or it is not open for writing.
pub(crate) fn inherited_for_writing(number: RawFd) -> Result<OwnedFd, DescriptorError> {
    let owned = inherited(number)?;
    let flags = rustix::fs::fcntl_getfl(&owned).map_err(DescriptorError::Duplicate)?;
    let writable = matches!(flags & OFlags::ACCMODE, OFlags::WRONLY | OFlags::RDWR);
    if writable && !flags.contains(OFlags::PATH) { Ok(owned) } else { Err(DescriptorError::NotWritable(number)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd as _;

    #[test]
    fn what_is_not_open_is_refused() {
        for number in [-1, i32::MIN, 100_000] {
            assert_eq!(inherited(number).unwrap_err(), DescriptorError::Closed(number));
        }
    }

    #[test]
    fn a_file_that_is_open_for_reading_only_cannot_take_a_document() {
        let reader = std::fs::File::open("/dev/null").unwrap();
        assert!(inherited(reader.as_raw_fd()).is_ok());
        let number = reader.as_raw_fd();
        assert_eq!(inherited_for_writing(number).unwrap_err(), DescriptorError::NotWritable(number));
        let writer = std::fs::File::options().write(true).open("/dev/null").unwrap();
        assert!(inherited_for_writing(writer.as_raw_fd()).is_ok());
    }
}
