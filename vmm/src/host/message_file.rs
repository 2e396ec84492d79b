// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The standard error of a process that runs as long as the machine: a file in memory that does not grow, because a guest may
//! cause messages. What exceeds it is lost; the process does not wait and is not ended for it.

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use std::fs::File;
use std::io::Result;
use std::os::unix::fs::FileExt as _;

const MAX_BYTES: usize = 64 << 10;

#[derive(Debug)]
pub(crate) struct MessageFile(File);

impl MessageFile {
    pub(crate) fn new() -> Result<Self> {
        let file = memfd_create("messages", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&file, MAX_BYTES as u64)?;
        fcntl_add_seals(&file, SealFlags::GROW | SealFlags::SHRINK)?;
        Ok(Self(file.into()))
    }

    /// For the process. It writes from the beginning.
    pub(crate) fn writer(&self) -> Result<File> {
        self.0.try_clone()
    }

    /// What was written so far.
    #[must_use]
    pub(crate) fn content(&self) -> String {
        let mut bytes = vec![0; MAX_BYTES];
        let count = self.0.read_at(&mut bytes, 0).unwrap_or(0);
        let end = bytes[..count].iter().position(|byte| *byte == 0).unwrap_or(count);
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn message_file_keeps_the_beginning_and_does_not_grow() {
        let messages = MessageFile::new().unwrap();
        assert_eq!(messages.content(), "");
        let mut writer = messages.writer().unwrap();
        writer.write_all(b"first\n").unwrap();
        assert_eq!(messages.content(), "first\n");
        assert!(writer.write_all(&[b'x'; MAX_BYTES]).is_err());
        assert!(messages.content().starts_with("first\nx") && messages.content().len() <= MAX_BYTES);
    }
}
