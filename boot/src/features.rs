// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Features of a kernel, found in its image: names of parameters, ACPI ids and file systems are
//! strings in it. Pure but for reading its source.

use memchr::memmem::Finder;
use std::io::{self, Read, Seek, SeekFrom};

const READ_BUF_SIZE: usize = 512 << 10;
const MAX_RELEASE_LENGTH: usize = 64;
/// Precedes the release in the first line that a kernel prints.
const BANNER: &[u8] = b"Linux version ";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    Acpi,
    /// Reads an MP table (`CONFIG_X86_MPPARSE`).
    MpTable,
    /// Takes virtio-mmio devices from the command line (`CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES`).
    MmioOnCommandLine,
    /// Finds virtio-mmio devices by ACPI (`CONFIG_VIRTIO_MMIO` and `CONFIG_ACPI`).
    MmioByAcpi,
    Erofs,
    Squashfs,
    Ext4,
    Overlay,
}

/// Each with its name in the cache and the bytes that prove it. The name of a driver or file system
/// is a complete string, so that others with the same end do not match. (The linker may merge it
/// into a longer string with that end, which for these was never seen.)
const FEATURES: [(Feature, &str, &[u8]); 8] = [
    (Feature::Acpi, "acpi", b"RSD PTR "),
    (Feature::MpTable, "mp-table", b"MPTABLE: "),
    (Feature::MmioOnCommandLine, "mmio-on-command-line", b"virtio_mmio.device\0"),
    (Feature::MmioByAcpi, "mmio-by-acpi", b"LNRO0005\0"),
    (Feature::Erofs, "erofs", b"\0erofs\0"),
    (Feature::Squashfs, "squashfs", b"\0squashfs\0"),
    (Feature::Ext4, "ext4", b"\0ext4\0"),
    (Feature::Overlay, "overlay", b"\0overlay\0"),
];

/// Start of a virtio driver's name, e.g. `virtio_blk`, which is a complete string like that of a
/// file system.
const DRIVER_PREFIX: &[u8] = b"\0virtio_";
const MAX_DRIVER_NAME_LENGTH: usize = 32;
/// Linux has about twenty.
const MAX_DRIVERS: usize = 64;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features {
    found: Vec<Feature>,
    /// Names of virtio drivers, sorted.
    drivers: Vec<String>,
    release: Option<String>,
}

impl Features {
    /// Searches the first `length` bytes of `image`, an uncompressed kernel. A file can be larger
    /// than its content.
    pub fn search(image: &mut (impl Read + Seek), length: u64) -> io::Result<Self> {
        let mut wanted: Vec<_> = FEATURES.iter().map(|(feature, _, bytes)| (*feature, Finder::new(bytes))).collect();
        let (banner, driver) = (Finder::new(BANNER), Finder::new(DRIVER_PREFIX));
        let mut features = Self::default();
        // The end of a buffer is searched again with the next one: a string may span both.
        let kept = BANNER.len() + MAX_RELEASE_LENGTH;
        let mut bytes = vec![0; kept + READ_BUF_SIZE];
        let mut filled = 0;
        image.seek(SeekFrom::Start(0))?;
        let mut image = image.take(length);
        loop {
            let length = read_full(&mut image, &mut bytes[filled..])?;
            let buffer = &bytes[..filled + length];
            wanted.retain(|(feature, finder)| {
                let found = finder.find(buffer).is_some();
                if found {
                    features.found.push(*feature);
                }
                !found
            });
            driver.find_iter(buffer).for_each(|at| features.add_driver(&buffer[at + 1..]));
            if features.release.is_none() {
                let places = banner.find_iter(buffer);
                features.release = places.filter_map(|at| release(&buffer[at + BANNER.len()..])).next();
            }
            if length < bytes.len() - filled {
                break;
            }
            filled = kept;
            let end = bytes.len();
            bytes.copy_within(end - kept.., 0);
        }
        features.found.sort_by_key(|feature| *feature as u8);
        Ok(features)
    }

    /// Adds the driver whose name starts `text`, up to a zero byte.
    fn add_driver(&mut self, text: &[u8]) {
        let is_part = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'_';
        let Some(length) = text.iter().take(MAX_DRIVER_NAME_LENGTH + 1).position(|byte| !is_part(byte)) else { return };
        let name = String::from_utf8_lossy(&text[..length]).into_owned();
        if text[length] == 0
            && self.drivers.len() < MAX_DRIVERS
            && let Err(place) = self.drivers.binary_search(&name)
        {
            self.drivers.insert(place, name);
        }
    }

    /// Whether the virtio driver `name` (the name of its module) is built in.
    #[must_use]
    pub fn has_driver(&self, name: &str) -> bool {
        self.drivers.iter().any(|driver| driver == name)
    }

    #[must_use]
    pub fn has(&self, feature: Feature) -> bool {
        self.found.contains(&feature)
    }

    /// Whether the file system `name` (as in `mount -t`) is built in. `false` for those that are
    /// not in [`Feature`].
    #[must_use]
    pub fn has_file_system(&self, name: &str) -> bool {
        [Feature::Erofs, Feature::Squashfs, Feature::Ext4, Feature::Overlay].into_iter().any(|feature| {
            self.has(feature) && FEATURES.iter().any(|(known, own, _)| *known == feature && *own == name)
        })
    }

    /// The kernel's release, as `uname -r` prints it.
    #[must_use]
    pub fn release(&self) -> Option<&str> {
        self.release.as_deref()
    }

    /// Formats one line for [`from_line`](Self::from_line).
    pub(crate) fn to_line(&self) -> String {
        let names = FEATURES.iter().filter(|(feature, ..)| self.has(*feature)).map(|(_, name, _)| *name);
        let drivers = self.drivers.iter().map(String::as_str);
        std::iter::once(self.release().unwrap_or("-")).chain(names).chain(drivers).collect::<Vec<_>>().join(" ") + "\n"
    }

    /// Parses a line of [`to_line`](Self::to_line).
    pub(crate) fn from_line(line: &str) -> Option<Self> {
        let mut words = line.strip_suffix('\n')?.split(' ');
        let release = words.next().filter(|word| !word.is_empty())?;
        let by_name = |name: &str| FEATURES.iter().find(|(_, known, _)| *known == name).map(|(feature, ..)| *feature);
        let (drivers, names): (Vec<&str>, Vec<&str>) = words.partition(|word| word.starts_with("virtio_"));
        let found = names.into_iter().map(by_name).collect::<Option<_>>()?;
        let drivers = drivers.into_iter().map(str::to_owned).collect();
        Some(Self { found, drivers, release: (release != "-").then(|| release.to_owned()) })
    }
}

/// Returns the release at the start of `text`, up to a blank, if it can be the name of a directory.
pub(crate) fn release(text: &[u8]) -> Option<String> {
    let length = text.iter().position(|byte| !byte.is_ascii_graphic())?;
    let release = &text[..length];
    let is_valid = release.first()?.is_ascii_digit() && length <= MAX_RELEASE_LENGTH && !release.contains(&b'/');
    is_valid.then(|| String::from_utf8_lossy(release).into_owned())
}

/// Fills `bytes` unless the source ends before.
fn read_full(source: &mut impl Read, bytes: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < bytes.len() {
        match source.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
#[path = "features_tests.rs"]
mod tests;
