// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The session keyring, in which the kernel keeps keys of the user's session: those of encrypted directories and of network file
//! systems, for example.
#![allow(unsafe_code, reason = "keyctl(2) has no wrapper")]

use std::io::{Error, Result};

/// Gives the calling thread, and those that it starts, an empty session keyring in place of the caller's.
pub(crate) fn leave() -> Result<()> {
    // SAFETY: a null name is that of a new keyring without one.
    let joined = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<u8>()) };
    if joined < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> libc::c_long {
        // SAFETY: takes no pointer.
        unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_GET_KEYRING_ID, libc::KEY_SPEC_SESSION_KEYRING, 0) }
    }

    #[test]
    fn thread_that_leaves_the_keyring_has_another_one() {
        let before = session();
        let own = std::thread::spawn(|| leave().map(|()| session())).join().unwrap();
        assert_ne!(own.unwrap(), before);
        assert_eq!(session(), before);
    }
}
