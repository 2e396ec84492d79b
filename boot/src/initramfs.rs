// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Writes an uncompressed initramfs in the `newc` format of cpio
//! (Documentation/driver-api/early-userspace/ buffer-format.rst of the Linux kernel). Pure; the
//! same entries give the same bytes.
//!
//! Uncompressed, because the guest's kernel unpacks it: on a host that emulates kernel mode, gzip
//! costs ten times as much as a copy.

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {size} bytes are too large for an initramfs, the maximum is 4 GiB")]
pub struct FileTooLarge {
    path: String,
    size: u64,
}

const MAGIC: &str = "070701";
const END: &str = "TRAILER!!!";
const ALIGNMENT: usize = 4;

const DIRECTORY: u32 = 0o040_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
const REGULAR_FILE: u32 = 0o100_000;

/// Builds an archive. All entries are owned by root and have the time stamp 0. Parents must come
/// before their children.
#[derive(Clone, Debug, Default)]
pub struct Initramfs {
    bytes: Vec<u8>,
    entries: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceNumber {
    pub major: u32,
    pub minor: u32,
}

/// `/dev/console`, which the kernel opens as the standard streams of `/init`.
pub const CONSOLE: DeviceNumber = DeviceNumber { major: 5, minor: 1 };

impl Initramfs {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns an archive with `init` as `/init`, and the console that it writes to before it has
    /// mounted `/dev`.
    pub fn with_init(init: &[u8]) -> Result<Self, FileTooLarge> {
        Self::new().directory("dev", 0o755).device("dev/console", 0o600, CONSOLE).file("init", 0o755, init)
    }

    /// Adds a directory; `path` is relative to the root.
    #[must_use]
    pub fn directory(mut self, path: &str, mode: u32) -> Self {
        self.entry(path, DIRECTORY | mode, 2, DeviceNumber::default(), 0);
        self
    }

    /// Adds a character device; `path` is relative to the root.
    #[must_use]
    pub fn device(mut self, path: &str, mode: u32, number: DeviceNumber) -> Self {
        self.entry(path, CHARACTER_DEVICE | mode, 1, number, 0);
        self
    }

    /// Adds a regular file of up to 4 GiB; `path` is relative to the root.
    pub fn file(mut self, path: &str, mode: u32, content: &[u8]) -> Result<Self, FileTooLarge> {
        let size = content.len() as u64;
        let length = u32::try_from(size).map_err(|_| FileTooLarge { path: path.to_owned(), size })?;
        self.bytes.reserve(content.len() + 512);
        self.entry(path, REGULAR_FILE | mode, 1, DeviceNumber::default(), length);
        self.bytes.extend_from_slice(content);
        self.pad();
        Ok(self)
    }

    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.header(END, 0, 0, 1, DeviceNumber::default(), 0);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, links: u32, device: DeviceNumber, size: u32) {
        self.entries += 1;
        self.header(path, self.entries, mode, links, device, size);
    }

    fn header(&mut self, path: &str, inode: u32, mode: u32, links: u32, device: DeviceNumber, size: u32) {
        let (uid, gid, time, check) = (0, 0, 0, 0);
        let (disk_major, disk_minor) = (0, 0);
        let name_size = path.len() as u32 + 1;
        let fields = [
            inode,
            mode,
            uid,
            gid,
            links,
            time,
            size,
            disk_major,
            disk_minor,
            device.major,
            device.minor,
            name_size,
            check,
        ];
        self.bytes.extend_from_slice(MAGIC.as_bytes());
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Path, mode, device, content.
    type Entry = (String, u32, (u32, u32), Vec<u8>);

    /// Reads the entries of an archive back.
    fn read(archive: &[u8]) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut at = 0;
        loop {
            assert_eq!(&archive[at..at + 6], MAGIC.as_bytes());
            let field = |number: usize| {
                let text = std::str::from_utf8(&archive[at + 6 + 8 * number..][..8]).unwrap();
                u32::from_str_radix(text, 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let name = std::str::from_utf8(&archive[at + 110..at + 110 + name_size - 1]).unwrap();
            let content = (at + 110 + name_size).next_multiple_of(4);
            if name == END {
                return entries;
            }
            let bytes = archive[content..content + size].to_vec();
            entries.push((name.to_owned(), mode, (field(9), field(10)), bytes));
            at = (content + size).next_multiple_of(4);
        }
    }

    #[test]
    fn archive_survives_a_round_trip() {
        let archive = Initramfs::with_init(b"#!init").unwrap().file("etc", 0o644, b"").unwrap().finish();
        let expected = [
            ("dev".to_owned(), 0o040_755, (0, 0), vec![]),
            ("dev/console".to_owned(), 0o020_600, (5, 1), vec![]),
            ("init".to_owned(), 0o100_755, (0, 0), b"#!init".to_vec()),
            ("etc".to_owned(), 0o100_644, (0, 0), vec![]),
        ];
        assert_eq!(read(&archive), expected);
    }

    #[test]
    fn archive_is_padded_to_4_bytes_for_every_length() {
        for length in 0..8 {
            let content = vec![7; length];
            let archive = Initramfs::new().file(&"n".repeat(length + 1), 0o600, &content).unwrap().finish();
            assert_eq!(archive.len() % 4, 0);
            assert_eq!(read(&archive)[0].3, content);
        }
    }
}
