// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Random identifiers.

use super::hex::hex;
use rustix::io::Errno;

/// Hexadecimal digits of a short identifier, as docker shows it: enough for a name.
const SHORT_DIGITS: usize = 12;

/// getrandom(2) failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot get random bytes")]
pub(crate) struct RandomError(#[from] Errno);

/// `SHORT_DIGITS` random hexadecimal digits: the name of a machine that was given none, part of a temporary file's name.
///
/// # Errors
/// The kernel's random number generator failed.
pub(crate) fn random_id() -> Result<String, RandomError> {
    random_hex(SHORT_DIGITS)
}

/// `N` random bytes, at most 256.
///
/// # Errors
/// The kernel's random number generator failed.
pub(crate) fn random_bytes<const N: usize>() -> Result<[u8; N], RandomError> {
    let mut bytes = [0; N];
    fill(&mut bytes)?;
    Ok(bytes)
}

/// `digits` random hexadecimal digits, at most 512.
///
/// # Errors
/// The kernel's random number generator failed.
pub(crate) fn random_hex(digits: usize) -> Result<String, RandomError> {
    let mut bytes = [0_u8; 256];
    let bytes = &mut bytes[..digits.div_ceil(2)];
    fill(bytes)?;
    let mut text = hex(bytes);
    text.truncate(digits);
    Ok(text)
}

fn fill(bytes: &mut [u8]) -> Result<(), RandomError> {
    let filled = rustix::rand::getrandom(&mut *bytes, rustix::rand::GetRandomFlags::empty())?;
    assert_eq!(filled, bytes.len(), "getrandom(2) fills up to 256 bytes completely");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_identifiers_are_hexadecimal_and_differ() {
        for digits in [0, 1, 12, 64] {
            let [one, other] = [random_hex(digits).unwrap(), random_hex(digits).unwrap()];
            assert!(one.len() == digits && one.bytes().all(|b| b.is_ascii_hexdigit()), "{one}");
            assert!(digits < 12 || one != other);
        }
        assert_eq!(random_id().unwrap().len(), 12);
    }
}
