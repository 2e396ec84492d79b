// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Random names.

use std::io;

/// 12 random hexadecimal digits: the ID of a machine, or a part of a temporary file's name.
///
/// # Errors
/// The kernel's random number generator failed.
pub(crate) fn random_id() -> io::Result<String> {
    let mut bytes = [0_u8; 6];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    assert_eq!(filled, bytes.len(), "getrandom(2) fills up to 256 bytes completely");
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
