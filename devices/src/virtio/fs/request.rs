// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The body of a request: copied out of guest memory once, then taken apart with checks. Pure.

use rustix::io::Errno;
use std::ffi::{CStr, CString};
use zerocopy::FromBytes;

/// Longest name of a file.
const MAX_NAME_SIZE: usize = 255;
/// Longest target of a symbolic link.
const MAX_TARGET_SIZE: usize = 4095;

/// What is left of a request's body.
pub(super) struct Body<'b>(pub(super) &'b [u8]);

impl<'b> Body<'b> {
    /// The structure that comes next.
    pub(super) fn take<T: FromBytes>(&mut self) -> Result<T, Errno> {
        let (value, rest) = T::read_from_prefix(self.0).map_err(|_| Errno::INVAL)?;
        self.0 = rest;
        Ok(value)
    }

    /// A name of a file: one component.
    pub(super) fn name(&mut self) -> Result<CString, Errno> {
        let name = self.string()?;
        match name.to_bytes() {
            b"" | b"." | b".." => Err(Errno::INVAL),
            bytes if bytes.contains(&b'/') => Err(Errno::INVAL),
            bytes if bytes.len() > MAX_NAME_SIZE => Err(Errno::NAMETOOLONG),
            _ => Ok(name.to_owned()),
        }
    }

    /// The target of a symbolic link, which only the guest resolves.
    pub(super) fn target(&mut self) -> Result<CString, Errno> {
        let target = self.string()?;
        match target.to_bytes().len() {
            0 => Err(Errno::NOENT),
            length if length > MAX_TARGET_SIZE => Err(Errno::NAMETOOLONG),
            _ => Ok(target.to_owned()),
        }
    }

    /// The bytes before the next zero byte.
    pub(super) fn string(&mut self) -> Result<&'b CStr, Errno> {
        let string = CStr::from_bytes_until_nul(self.0).map_err(|_| Errno::INVAL)?;
        self.0 = &self.0[string.to_bytes_with_nul().len()..];
        Ok(string)
    }

    /// The next `length` bytes.
    pub(super) fn bytes(&mut self, length: usize) -> Result<&'b [u8], Errno> {
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_one_component() {
        let parse = |bytes: &[u8]| Body(bytes).name();
        assert_eq!(parse(b"a b\0rest").unwrap().to_bytes(), b"a b");
        for bytes in [&b""[..], b"\0", b".\0", b"..\0", b"a/b\0", b"/\0", b"../x\0", b"no end"] {
            assert_eq!(parse(bytes), Err(Errno::INVAL), "{bytes:?}");
        }
        assert_eq!(parse(&[&[b'x'; 256][..], b"\0"].concat()), Err(Errno::NAMETOOLONG));
    }

    #[test]
    fn short_structure_is_invalid() {
        assert_eq!(Body(&[0; 7]).take::<u64>(), Err(Errno::INVAL));
        assert_eq!(Body(&[1; 3]).bytes(4), Err(Errno::INVAL));
    }
}
