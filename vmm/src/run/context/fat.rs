// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reads a file of a FAT12, FAT16 or FAT32 file system (Microsoft's FAT specification, 1.03) by its path. Names are long ones (VFAT) or
//! those of eight and three characters; case does not count. What the image says is checked before it is used: sizes are bounded, a
//! chain of clusters ends at the first one that it has twice, and nothing is followed but the directories of the path.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

const BOOT_SECTOR_BYTES: usize = 512;
const ENTRY_BYTES: usize = 32;
const MAX_DIRECTORY_BYTES: u64 = 256 << 10;
/// In the attributes of an entry.
const VOLUME_LABEL: u8 = 0x08;
const DIRECTORY: u8 = 0x10;
/// All four lowest bits: a part of a long name.
const LONG_NAME: u8 = 0x0f;
/// UTF-16 units in one entry, and where they are.
const LONG_NAME_UNITS: [usize; 13] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
/// Of 255 units.
const MAX_LONG_NAME_ENTRIES: u8 = 20;

#[derive(Debug, thiserror::Error)]
pub(super) enum FatError {
    #[error("a directory of the image has more than {MAX_DIRECTORY_BYTES} bytes")]
    LargeDirectory,
    #[error("{0} has {1} bytes; the maximum is {2}")]
    LargeFile(String, u32, u64),
    #[error("the clusters of {0} form a loop")]
    Loop(String),
    #[error("the clusters of {0} end before it does, or one of them is invalid")]
    Chain(String),
    #[error("the image ends before its files do")]
    Truncated(#[source] std::io::Error),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    Fat12,
    Fat16,
    Fat32,
}

/// Where the directory at the beginning of all paths is.
#[derive(Clone, Copy, Debug)]
enum Directory {
    /// Of FAT12 and FAT16: offset and bytes.
    Root(u64, u64),
    Chain(u32),
}

/// A file system in an image.
#[derive(Debug)]
pub(super) struct Fat {
    file: File,
    layout: Layout,
}

/// What the boot sector says.
#[derive(Debug)]
struct Layout {
    width: Width,
    root: Directory,
    /// Offset of the first table of clusters.
    table: u64,
    /// Offset of cluster 2, the first one.
    data: u64,
    cluster_bytes: u64,
    /// The number behind the last one.
    end: u32,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    cluster: u32,
    bytes: u32,
    is_directory: bool,
}

impl Layout {
    /// `None` if the sector is not that of such a file system.
    fn parse(boot: &[u8; BOOT_SECTOR_BYTES]) -> Option<Self> {
        let half = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
        let word = |at: usize| u64::from(word(boot, at));
        let (sector, sectors_per_cluster, reserved) = (half(11), u64::from(boot[13]), half(14));
        let (tables, root_entries) = (u64::from(boot[16]), half(17));
        let sectors = if half(19) == 0 { word(32) } else { half(19) };
        let is_fat32 = half(22) == 0;
        let table_sectors = if is_fat32 { word(36) } else { half(22) };
        let is_valid = [0xeb, 0xe9].contains(&boot[0])
            && boot[510..] == [0x55, 0xaa]
            && [512, 1024, 2048, 4096].contains(&sector)
            && sectors_per_cluster.is_power_of_two()
            && reserved > 0
            && tables > 0
            && table_sectors > 0
            && (root_entries == 0) == is_fat32;
        if !is_valid {
            return None;
        }
        // None of these overflows: all factors have 32 bits at most, and few of them have more than 16.
        let root_at = reserved + tables * table_sectors;
        let root_bytes = root_entries * ENTRY_BYTES as u64;
        let data_at = root_at + root_bytes.div_ceil(sector);
        let clusters = sectors.checked_sub(data_at)? / sectors_per_cluster;
        let width = match clusters {
            _ if is_fat32 => Width::Fat32,
            ..4085 => Width::Fat12,
            4085..65525 => Width::Fat16,
            _ => return None,
        };
        let root =
            if is_fat32 { Directory::Chain(word(44) as u32) } else { Directory::Root(root_at * sector, root_bytes) };
        Some(Self {
            width,
            root,
            table: reserved * sector,
            data: data_at * sector,
            cluster_bytes: sectors_per_cluster * sector,
            // The highest four bits of FAT32 are no part of a number.
            end: (clusters.min(0x0fff_fff0) + 2) as u32,
        })
    }
}

impl Fat {
    /// Gives the file back if it has no such file system.
    pub(super) fn open(file: File) -> Result<Self, File> {
        let mut boot = [0; BOOT_SECTOR_BYTES];
        match file.read_exact_at(&mut boot, 0).ok().and_then(|()| Layout::parse(&boot)) {
            Some(layout) => Ok(Self { file, layout }),
            None => Err(file),
        }
    }

    /// The content of the file at `path`, or `None` if there is none.
    pub(super) fn read(&self, path: &str, max: u64) -> Result<Option<Vec<u8>>, FatError> {
        let mut directory = self.layout.root;
        let mut names = path.split('/').peekable();
        while let Some(name) = names.next() {
            let content = self.directory(directory, path)?;
            let Some(entry) = find(&content, name) else { return Ok(None) };
            match (names.peek(), entry.is_directory) {
                (Some(_), true) => directory = Directory::Chain(self.number(entry.cluster)),
                (None, false) if u64::from(entry.bytes) > max => {
                    return Err(FatError::LargeFile(path.to_owned(), entry.bytes, max));
                }
                (None, false) => return self.file(entry, path).map(Some),
                (Some(_), false) | (None, true) => return Ok(None),
            }
        }
        Ok(None)
    }

    /// FAT12 and FAT16 have nothing in the upper half.
    fn number(&self, cluster: u32) -> u32 {
        if self.layout.width == Width::Fat32 { cluster } else { cluster & 0xffff }
    }

    fn directory(&self, directory: Directory, path: &str) -> Result<Vec<u8>, FatError> {
        let first = match directory {
            Directory::Root(_, bytes) if bytes > MAX_DIRECTORY_BYTES => return Err(FatError::LargeDirectory),
            Directory::Root(offset, bytes) => {
                let mut content = vec![0; bytes as usize];
                self.read_at(&mut content, offset)?;
                return Ok(content);
            }
            Directory::Chain(first) => first,
        };
        let (mut content, mut chain) = (Vec::new(), Chain::new(self, first, path));
        while let Some(cluster) = chain.next()? {
            let start = content.len();
            if start as u64 + self.layout.cluster_bytes > MAX_DIRECTORY_BYTES {
                return Err(FatError::LargeDirectory);
            }
            content.resize(start + self.layout.cluster_bytes as usize, 0);
            self.read_at(&mut content[start..], self.offset(cluster))?;
        }
        Ok(content)
    }

    fn file(&self, entry: Entry, path: &str) -> Result<Vec<u8>, FatError> {
        let mut content = vec![0; entry.bytes as usize];
        let mut chain = Chain::new(self, self.number(entry.cluster), path);
        for part in content.chunks_mut(self.layout.cluster_bytes as usize) {
            let cluster = chain.next()?.ok_or_else(|| FatError::Chain(path.to_owned()))?;
            self.read_at(part, self.offset(cluster))?;
        }
        Ok(content)
    }

    fn offset(&self, cluster: u32) -> u64 {
        self.layout.data + u64::from(cluster - 2) * self.layout.cluster_bytes
    }

    fn read_at(&self, content: &mut [u8], offset: u64) -> Result<(), FatError> {
        self.file.read_exact_at(content, offset).map_err(FatError::Truncated)
    }

    /// What the table has for `cluster`: the number of the next one, or a mark.
    fn table_entry(&self, cluster: u32) -> Result<u32, FatError> {
        let number = u64::from(cluster);
        let mut entry = [0; 4];
        let (offset, bytes) = match self.layout.width {
            Width::Fat12 => (number * 3 / 2, 2),
            Width::Fat16 => (number * 2, 2),
            Width::Fat32 => (number * 4, 4),
        };
        self.read_at(&mut entry[..bytes], self.layout.table + offset)?;
        let entry = u32::from_le_bytes(entry);
        Ok(match self.layout.width {
            Width::Fat12 if cluster.is_multiple_of(2) => entry & 0xfff,
            Width::Fat12 => entry >> 4,
            Width::Fat16 => entry,
            Width::Fat32 => entry & 0x0fff_ffff,
        })
    }

    /// Whether an entry of the table says that there is no other cluster.
    fn is_end(&self, entry: u32) -> bool {
        entry
            >= match self.layout.width {
                Width::Fat12 => 0xff8,
                Width::Fat16 => 0xfff8,
                Width::Fat32 => 0x0fff_fff8,
            }
    }
}

/// The clusters of a file or directory, one after the other.
struct Chain<'a> {
    fat: &'a Fat,
    first: u32,
    /// Those so far. The size of what is read bounds their number.
    seen: Vec<u32>,
    path: &'a str,
}

impl<'a> Chain<'a> {
    fn new(fat: &'a Fat, first: u32, path: &'a str) -> Self {
        Self { fat, first, seen: Vec::new(), path }
    }

    /// The next cluster, or `None` at the end.
    fn next(&mut self) -> Result<Option<u32>, FatError> {
        let cluster = match self.seen.last() {
            None => self.first,
            Some(last) => self.fat.table_entry(*last)?,
        };
        if !self.seen.is_empty() && self.fat.is_end(cluster) {
            return Ok(None);
        }
        if !(2..self.fat.layout.end).contains(&cluster) {
            return Err(FatError::Chain(self.path.to_owned()));
        }
        if self.seen.contains(&cluster) {
            return Err(FatError::Loop(self.path.to_owned()));
        }
        self.seen.push(cluster);
        Ok(Some(cluster))
    }
}

/// The entry with this name.
fn find(directory: &[u8], name: &str) -> Option<Entry> {
    let mut long = LongName::default();
    for entry in directory.chunks_exact(ENTRY_BYTES) {
        let attributes = entry[11];
        match entry[0] {
            0 => return None,
            // Deleted.
            0xe5 => long = LongName::default(),
            _ if attributes & 0x3f == LONG_NAME => long.add(entry),
            _ if attributes & VOLUME_LABEL != 0 => long = LongName::default(),
            _ => {
                let long = std::mem::take(&mut long).of(entry);
                if long.is_some_and(|long| long.eq_ignore_ascii_case(name))
                    || short_name(entry).eq_ignore_ascii_case(name.as_bytes())
                {
                    let half = |at: usize| u32::from(u16::from_le_bytes([entry[at], entry[at + 1]]));
                    return Some(Entry {
                        cluster: half(20) << 16 | half(26),
                        bytes: word(entry, 28),
                        is_directory: attributes & DIRECTORY != 0,
                    });
                }
            }
        }
    }
    None
}

/// `NAME.EXT`.
fn short_name(entry: &[u8]) -> Vec<u8> {
    let [name, extension] = [&entry[..8], &entry[8..11]].map(<[u8]>::trim_ascii_end);
    if extension.is_empty() { name.to_vec() } else { [name, b".", extension].concat() }
}

/// A long name, whose entries come before that of the short one, the last part first.
#[derive(Debug, Default)]
struct LongName {
    units: Vec<u16>,
    /// The number of the next entry; 0 once the name is complete.
    missing: u8,
    checksum: u8,
}

impl LongName {
    fn add(&mut self, entry: &[u8]) {
        let (number, is_last) = (entry[0] & 0x3f, entry[0] & 0x40 != 0);
        if is_last {
            *self = Self { units: Vec::new(), missing: number, checksum: entry[13] };
        }
        let continues = self.missing == number && self.checksum == entry[13];
        if !continues || !(1..=MAX_LONG_NAME_ENTRIES).contains(&number) {
            *self = Self::default();
            return;
        }
        let part = LONG_NAME_UNITS.map(|at| u16::from_le_bytes([entry[at], entry[at + 1]]));
        self.units.splice(..0, part);
        self.missing -= 1;
    }

    /// The name, if it is whole and that of `entry`.
    fn of(self, entry: &[u8]) -> Option<String> {
        let checksum = entry[..11].iter().fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
        if self.units.is_empty() || self.missing != 0 || self.checksum != checksum {
            return None;
        }
        let units = self.units.split(|unit| *unit == 0).next().unwrap_or_default();
        Some(String::from_utf16_lossy(units))
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
#[path = "fat_tests.rs"]
mod tests;
