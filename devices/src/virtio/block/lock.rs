// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The lock on a disk's file, so that no two machines write it, and none reads what another writes.
//! Runs on `main`.
//!
//! It is an open-file-description lock (`fcntl(2)`, `F_OFD_SETLK`): it belongs to the open file,
//! excludes other open files in any process, works on network file systems, and ends with the last
//! descriptor, also when a process is killed.
#![allow(unsafe_code, reason = "no safe wrapper offers open-file-description locks")]

use std::fs::File;
use std::io::{Error, Result};
use std::os::fd::AsRawFd;

/// Locks all of `file`, shared if `read_only`.
///
/// # Errors
/// `WouldBlock` if another open file has a lock that excludes this one; any other if the file
/// cannot be locked at all.
pub(super) fn lock(file: &File, read_only: bool) -> Result<()> {
    let kind = if read_only { libc::F_RDLCK } else { libc::F_WRLCK };
    // SAFETY: flock is plain data; all zeroes is a range from the start to the end, and no process
    // id, as this lock wants.
    let mut range: libc::flock = unsafe { std::mem::zeroed() };
    range.l_type = kind as libc::c_short;
    range.l_whence = libc::SEEK_SET as libc::c_short;
    // SAFETY: the descriptor is open, and `range` is what the command reads.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &range) } {
        -1 => Err(match Error::last_os_error() {
            // fcntl(2) allows either error for a lock that is held.
            error if error.raw_os_error() == Some(libc::EACCES) => std::io::ErrorKind::WouldBlock.into(),
            error => error,
        }),
        _ => Ok(()),
    }
}
