// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Descriptors inherited from the parent process (`fd:N`, `fd=N`). Runs before this process opens anything, so that a number which
//! the parent did not open is closed.
#![allow(unsafe_code, reason = "a number from the command line becomes a descriptor")]

use rustix::fs::OFlags;
use rustix::io::Errno;
use std::os::fd::{BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DescriptorError {
    #[error("descriptor {0} is not open")]
    Closed(i32),
    #[error("cannot duplicate descriptor {0}")]
    Duplicate(i32, #[source] Errno),
    /// Open for reading only, or with `O_PATH`.
    #[error("descriptor {0} is not open for writing")]
    NotWritable(i32),
}

/// A duplicate of the descriptor `number`, closed on exec.
///
/// # Errors
/// `number` is not open, or the limit of descriptors is reached.
pub(crate) fn inherited(number: RawFd) -> Result<OwnedFd, DescriptorError> {
    if number < 0 {
        return Err(DescriptorError::Closed(number));
    }
    // SAFETY: the number is not -1, and the system calls on it fail with EBADF if it is not open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    match rustix::io::fcntl_dupfd_cloexec(borrowed, 3) {
        Err(Errno::BADF) => Err(DescriptorError::Closed(number)),
        Err(error) => Err(DescriptorError::Duplicate(number, error)),
        Ok(owned) => {
            // Child processes need neither of the two. The descriptor is open, so this cannot fail.
            let _ = rustix::io::fcntl_setfd(borrowed, rustix::io::FdFlags::CLOEXEC);
            Ok(owned)
        }
    }
}

/// The same, and the number itself is closed. Only for a descriptor that the parent, this program, has opened for this process.
///
/// # Errors
/// As [`inherited`].
pub(crate) fn take_inherited(number: RawFd) -> Result<OwnedFd, DescriptorError> {
    let owned = inherited(number)?;
    // SAFETY: it is open, and nothing in this process owns it: the parent opened it for the caller.
    drop(unsafe { OwnedFd::from_raw_fd(number) });
    Ok(owned)
}

/// As [`inherited`], if it is open for writing.
///
/// # Errors
/// As [`inherited`], or it is not.
pub(crate) fn inherited_for_writing(number: RawFd) -> Result<OwnedFd, DescriptorError> {
    let owned = inherited(number)?;
    let flags = rustix::fs::fcntl_getfl(&owned).map_err(|error| DescriptorError::Duplicate(number, error))?;
    let writable = matches!(flags & OFlags::ACCMODE, OFlags::WRONLY | OFlags::RDWR);
    if writable && !flags.contains(OFlags::PATH) { Ok(owned) } else { Err(DescriptorError::NotWritable(number)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd as _;

    #[test]
    fn inherited_rejects_closed_descriptors() {
        for number in [-1, i32::MIN, 100_000] {
            assert_eq!(inherited(number).unwrap_err(), DescriptorError::Closed(number));
        }
    }

    #[test]
    fn inherited_for_writing_rejects_read_only_files() {
        let reader = std::fs::File::open("/dev/null").unwrap();
        assert!(inherited(reader.as_raw_fd()).is_ok());
        let number = reader.as_raw_fd();
        assert_eq!(inherited_for_writing(number).unwrap_err(), DescriptorError::NotWritable(number));
        let writer = std::fs::File::options().write(true).open("/dev/null").unwrap();
        assert!(inherited_for_writing(writer.as_raw_fd()).is_ok());
    }
}
