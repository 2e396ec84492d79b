// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A working directory and a root directory of one thread, which are the process's otherwise.
#![allow(unsafe_code, reason = "unshare(2) has no safe wrapper")]

use rustix::io::Result;
use rustix::process::{chroot, fchdir};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::cell::Cell;
use std::os::fd::AsFd;

thread_local! {
    static HAS_ENTERED: Cell<bool> = const { Cell::new(false) };
}

/// Gives the calling thread the working directory `directory`.
pub(crate) fn enter(directory: impl AsFd) -> Result<()> {
    // SAFETY: descriptors stay shared. Directories and the file mode creation mask are this thread's from now on.
    unsafe { unshare_unsafe(UnshareFlags::FS) }?;
    fchdir(directory)?;
    HAS_ENTERED.set(true);
    Ok(())
}

/// Makes the directory that the calling thread has entered, if it has, its root directory.
pub(crate) fn become_root() -> Result<()> {
    if HAS_ENTERED.get() { chroot(".") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::env::current_dir;
    use std::fs::File;

    #[test]
    fn directory_that_was_not_entered_does_not_become_root() {
        assert_eq!(become_root(), Ok(()));
        assert!(std::path::Path::new("/proc/self").exists());
    }

    #[test]
    fn other_threads_keep_their_directory() {
        let (before, directory) = (current_dir().unwrap(), tempfile::tempdir().unwrap());
        let file = File::open(&directory).unwrap();
        let entered = std::thread::spawn(move || enter(file).map(|()| current_dir().unwrap()));
        assert_eq!(entered.join().unwrap(), Ok(directory.path().canonicalize().unwrap()));
        assert_eq!(current_dir().unwrap(), before);
    }
}
