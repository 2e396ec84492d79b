// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Features of a kernel that its image shows: names of parameters, of ACPI ids and of file systems are strings in it.
//! Pure but for reading its source, piece by piece.

use memchr::memmem::Finder;
use std::io::{self, Read, Seek, SeekFrom};

/// Read at a time.
const PIECE: usize = 512 << 10;
/// Longest release that is kept, bytes.
const LONGEST_RELEASE: usize = 64;
/// Before the release, in the line that every kernel prints first.
const BANNER: &[u8] = b"Linux version ";

/// Something that an image shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// ACPI tables are read.
    Acpi,
    /// An MP table is read (`CONFIG_X86_MPPARSE`).
    MpTable,
    /// virtio-mmio devices are taken from the command line (`CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES`).
    MmioOnCommandLine,
    /// virtio-mmio devices are found by ACPI (`CONFIG_VIRTIO_MMIO` and `CONFIG_ACPI`).
    MmioByAcpi,
    /// The file system EROFS.
    Erofs,
    /// The file system squashfs.
    Squashfs,
    /// The file system ext4.
    Ext4,
    Overlay,
}

/// Each with the name under which it is remembered and the bytes that show it. The name of a driver or a file system
/// stands alone, so that others which end alike do not count; the linker may fold it into a longer string that ends
/// with it, which for these has never been seen.
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

/// Before the rest of a virtio driver's name, e.g. `virtio_blk`, which is a string like that of a file system.
const DRIVER: &[u8] = b"\0virtio_";
/// Bytes of a driver's name.
const MAX_DRIVER_NAME: usize = 32;
/// Names of drivers that are kept. Linux has about twenty.
const MAX_DRIVERS: usize = 64;

/// What was found in one image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features {
    found: Vec<Feature>,
    /// Names of virtio drivers, sorted.
    drivers: Vec<String>,
    release: Option<String>,
}

impl Features {
    /// Searches the first `length` bytes of `image`, an uncompressed kernel: files can be larger than what is in them.
    ///
    /// # Errors
    /// Reading fails.
    pub fn search(image: &mut (impl Read + Seek), length: u64) -> io::Result<Self> {
        let mut wanted: Vec<_> = FEATURES.iter().map(|(feature, _, bytes)| (*feature, Finder::new(bytes))).collect();
        let (banner, driver) = (Finder::new(BANNER), Finder::new(DRIVER));
        let mut features = Self::default();
        // The end of a piece is searched again with the next one: something may lie across.
        let kept = BANNER.len() + LONGEST_RELEASE;
        let mut bytes = vec![0; kept + PIECE];
        let mut filled = 0;
        image.seek(SeekFrom::Start(0))?;
        let mut image = image.take(length);
        loop {
            let length = read_full(&mut image, &mut bytes[filled..])?;
            let piece = &bytes[..filled + length];
            wanted.retain(|(feature, finder)| {
                let found = finder.find(piece).is_some();
                if found {
                    features.found.push(*feature);
                }
                !found
            });
            driver.find_iter(piece).for_each(|at| features.note_driver(&piece[at + 1..]));
            if features.release.is_none() {
                let places = banner.find_iter(piece);
                features.release = places.filter_map(|at| release(&piece[at + BANNER.len()..])).next();
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

    /// Notes the driver whose name `text` begins with, up to a zero byte.
    fn note_driver(&mut self, text: &[u8]) {
        let is_part = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'_';
        let Some(length) = text.iter().take(MAX_DRIVER_NAME + 1).position(|byte| !is_part(byte)) else { return };
        let name = String::from_utf8_lossy(&text[..length]).into_owned();
        if text[length] == 0
            && self.drivers.len() < MAX_DRIVERS
            && let Err(place) = self.drivers.binary_search(&name)
        {
            self.drivers.insert(place, name);
        }
    }

    /// Whether the virtio driver of this name, as its module is called, is part of the image.
    #[must_use]
    pub fn has_driver(&self, name: &str) -> bool {
        self.drivers.iter().any(|driver| driver == name)
    }

    /// Whether the image shows `feature`.
    #[must_use]
    pub fn has(&self, feature: Feature) -> bool {
        self.found.contains(&feature)
    }

    /// Whether the file system of this name, as `mount -t` takes it, is part of the image. `false` for those that nobody
    /// searches for.
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

    /// One line that [`from_line`](Self::from_line) reads.
    pub(crate) fn to_line(&self) -> String {
        let names = FEATURES.iter().filter(|(feature, ..)| self.has(*feature)).map(|(_, name, _)| *name);
        let drivers = self.drivers.iter().map(String::as_str);
        std::iter::once(self.release().unwrap_or("-")).chain(names).chain(drivers).collect::<Vec<_>>().join(" ") + "\n"
    }

    /// What [`to_line`](Self::to_line) wrote; `None` for anything else.
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

/// The release at the start of `text`: up to a blank, and such as may be the name of a directory.
pub(crate) fn release(text: &[u8]) -> Option<String> {
    let length = text.iter().position(|byte| !byte.is_ascii_graphic())?;
    let release = &text[..length];
    let is_one = release.first()?.is_ascii_digit() && length <= LONGEST_RELEASE && !release.contains(&b'/');
    is_one.then(|| String::from_utf8_lossy(release).into_owned())
}

/// Fills `bytes` as far as there is something to read.
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
