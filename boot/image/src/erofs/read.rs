// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reads an image as this crate writes them: extended inodes, attributes in them, data in whole blocks, with a tail in the inode, or
//! in chunks.

use super::format::{
    DataLayout, Dirent, FEATURE_INCOMPAT_CHUNKED_FILE, INODE_SLOT, Inode, NULL_ADDR, SUPER_MAGIC, SUPER_OFFSET,
    SuperBlock, XattrEntry, XattrHeader,
};
use crate::budget::Budget;
use crate::file_system::{
    self, EXTENT_COST, Extent, FileKind, FileSystem, FileSystemError, Metadata, Name, Xattr, device_numbers,
    extents_cost, sorted,
};
use crate::limits;
use crate::root_disk::RootDisk;
use std::io;
use std::sync::Arc;
use zerocopy::{FromBytes, IntoBytes};

const FILE_SYSTEM: &str = "EROFS image";
const BLOCK_BITS: u8 = 12;
const BLOCK_SIZE: u64 = 1 << BLOCK_BITS;
/// Block addresses of a chunk map that are read together.
const MAP_READ_SIZE: usize = 4096;

/// An EROFS image.
#[derive(Debug)]
pub(crate) struct Erofs {
    disk: RootDisk,
    size: u64,
    root: u64,
    budget: Arc<Budget>,
}

fn damaged(what: &'static str) -> FileSystemError {
    FileSystemError::Damaged(FILE_SYSTEM, what)
}

impl Erofs {
    pub(crate) fn open(disk: RootDisk, budget: Arc<Budget>) -> Result<Self, FileSystemError> {
        let size = disk.bytes();
        let this = Self { disk, size, root: 0, budget };
        let superblock: SuperBlock = this.read(SUPER_OFFSET)?;
        if superblock.magic.get() != SUPER_MAGIC {
            return Err(FileSystemError::Magic("an EROFS image"));
        }
        let features = superblock.feature_incompat.get();
        if features & !FEATURE_INCOMPAT_CHUNKED_FILE != 0 {
            return Err(FileSystemError::Feature("EROFS", features));
        }
        if superblock.blkszbits != BLOCK_BITS || superblock.meta_blkaddr.get() != 0 {
            return Err(damaged("superblock"));
        }
        Ok(Self { root: superblock.root_nid.get().into(), ..this })
    }

    fn read<T: FromBytes + IntoBytes>(&self, position: u64) -> Result<T, FileSystemError> {
        let mut value = T::new_zeroed();
        self.read_checked(value.as_mut_bytes(), position)?;
        Ok(value)
    }

    fn read_checked(&self, buffer: &mut [u8], position: u64) -> Result<(), FileSystemError> {
        let end = position.checked_add(buffer.len() as u64).filter(|end| *end <= self.size);
        end.ok_or_else(|| damaged("a place behind its end"))?;
        Ok(self.read_at(buffer, position)?)
    }

    /// An inode, where it is, and where what follows it and its attributes is.
    fn inode(&self, file: u64) -> Result<(Inode, u64, u64), FileSystemError> {
        let position = file.checked_mul(INODE_SLOT).ok_or_else(|| damaged("inode number out of range"))?;
        let inode: Inode = self.read(position)?;
        if inode.format.get() & 1 == 0 || inode.format.get() >> 4 != 0 {
            return Err(damaged("format of an inode"));
        }
        let start = position + size_of::<Inode>() as u64;
        Ok((inode, start, start + attributes_size(&inode)))
    }

    fn layout(inode: &Inode) -> Result<DataLayout, FileSystemError> {
        match inode.format.get() >> 1 {
            0 => Ok(DataLayout::FlatPlain),
            2 => Ok(DataLayout::FlatInline),
            4 => Ok(DataLayout::ChunkBased),
            _ => Err(damaged("layout of data")),
        }
    }

    /// Where the data of any inode is.
    fn places(&self, inode: &Inode, behind: u64) -> Result<Vec<Extent>, FileSystemError> {
        let size = inode.size.get();
        let first = u64::from(inode.u.get()) * BLOCK_SIZE;
        let mut extents = Vec::new();
        match Self::layout(inode)? {
            DataLayout::FlatPlain => self.push(&mut extents, Extent { offset: 0, length: size, position: first })?,
            DataLayout::FlatInline => {
                let tail = size % BLOCK_SIZE;
                self.push(&mut extents, Extent { offset: 0, length: size - tail, position: first })?;
                self.push(&mut extents, Extent { offset: size - tail, length: tail, position: behind })?;
            }
            DataLayout::ChunkBased => self.chunks(&mut extents, size, inode.u.get(), behind)?,
        }
        Ok(extents)
    }

    fn chunks(&self, extents: &mut Vec<Extent>, size: u64, format: u32, map: u64) -> Result<(), FileSystemError> {
        if format & !0x1f != 0 {
            return Err(damaged("format of chunks"));
        }
        let bits = u32::from(BLOCK_BITS) + format;
        let count = size.div_ceil(1 << bits);
        let mut buffer = [0; MAP_READ_SIZE];
        for first in (0..count).step_by(MAP_READ_SIZE / 4) {
            let addresses = &mut buffer[..((count - first) * 4).min(MAP_READ_SIZE as u64) as usize];
            self.read_checked(addresses, map + first * 4)?;
            for (number, address) in (first..).zip(addresses.chunks_exact(4)) {
                let address = u32::from_le_bytes([address[0], address[1], address[2], address[3]]);
                if address != NULL_ADDR {
                    let offset = number << bits;
                    let length = (1 << bits).min(size - offset);
                    self.push(extents, Extent { offset, length, position: u64::from(address) * BLOCK_SIZE })?;
                }
            }
        }
        Ok(())
    }

    fn push(&self, extents: &mut Vec<Extent>, extent: Extent) -> Result<(), FileSystemError> {
        if extent.length == 0 {
            return Ok(());
        }
        let end = extent.position.checked_add(extent.length).filter(|end| *end <= self.size);
        end.ok_or_else(|| damaged("data behind its end"))?;
        // Neighbours in the file that are neighbours in the image are one.
        if let Some(last) = extents.last_mut()
            && (last.offset + last.length, last.position + last.length) == (extent.offset, extent.position)
        {
            last.length += extent.length;
            return Ok(());
        }
        self.budget.charge(EXTENT_COST).map_err(|_| FileSystemError::OverBudget)?;
        extents.push(extent);
        Ok(())
    }

    /// All data of a directory or a symlink, of at most `limit` bytes.
    fn content(&self, file: u64, limit: u64) -> Result<Vec<u8>, FileSystemError> {
        let (inode, _, behind) = self.inode(file)?;
        if inode.size.get() > limit {
            return Err(damaged("size of a directory or symlink"));
        }
        let mut content = vec![0; inode.size.get() as usize];
        let extents = self.places(&inode, behind)?;
        for extent in &extents {
            self.read_at(&mut content[extent.offset as usize..][..extent.length as usize], extent.position)?;
        }
        self.budget.release(extents_cost(&extents));
        Ok(content)
    }

    fn read_names(&self, block: &[u8], entries: &mut Vec<Name>) -> Result<(), FileSystemError> {
        let malformed = || damaged("directory");
        let entry = |number: usize| {
            let bytes = block.get(number * size_of::<Dirent>()..).unwrap_or_default();
            Dirent::read_from_prefix(bytes).map(|(entry, _)| entry).map_err(|_| malformed())
        };
        let start = |number| entry(number).map(|entry| usize::from(entry.nameoff.get()));
        let count = start(0)? / size_of::<Dirent>();
        for number in 0..count {
            let end = if number + 1 < count { start(number + 1)? } else { block.len() };
            let name = block.get(start(number)?..end).ok_or_else(malformed)?;
            match name.split(|byte| *byte == 0).next().unwrap_or_default() {
                b"." | b".." => {}
                name if !file_system::is_name(name) => return Err(malformed()),
                name => {
                    self.budget.charge(file_system::entry_cost(name)).map_err(|_| FileSystemError::OverBudget)?;
                    entries.push((name.into(), entry(number)?.nid.get()));
                }
            }
        }
        Ok(())
    }
}

fn attributes_size(inode: &Inode) -> u64 {
    match inode.xattr_icount.get() {
        0 => 0,
        units => size_of::<XattrHeader>() as u64 + 4 * (u64::from(units) - 1),
    }
}

impl FileSystem for Erofs {
    fn root(&self) -> u64 {
        self.root
    }

    fn metadata(&self, file: u64) -> Result<Metadata, FileSystemError> {
        let (inode, ..) = self.inode(file)?;
        let mode = inode.mode.get();
        let kind = FileKind::of_mode(mode).ok_or_else(|| damaged("type of an inode"))?;
        let device = if kind.is_device() { device_numbers(inode.u.get()) } else { (0, 0) };
        Ok(Metadata {
            kind,
            permissions: mode & 0o7777,
            uid: inode.uid.get(),
            gid: inode.gid.get(),
            size: inode.size.get(),
            links: inode.nlink.get(),
            modified: (inode.mtime.get().cast_signed(), inode.mtime_nsec.get()),
            device,
        })
    }

    fn entries(&self, directory: u64) -> Result<Vec<Name>, FileSystemError> {
        if self.metadata(directory)?.kind != FileKind::Directory {
            return Err(damaged("not a directory"));
        }
        let content = self.content(directory, limits::MAX_MEMORY)?;
        let mut entries = Vec::new();
        for block in content.chunks(BLOCK_SIZE as usize) {
            self.read_names(block, &mut entries)?;
        }
        sorted(entries, FILE_SYSTEM)
    }

    fn xattrs(&self, file: u64) -> Result<Vec<Xattr>, FileSystemError> {
        let malformed = || damaged("extended attribute");
        let (_, start, behind) = self.inode(file)?;
        let mut xattrs = Vec::new();
        if start == behind {
            return Ok(xattrs);
        }
        let header: XattrHeader = self.read(start)?;
        if header.shared_count != 0 {
            return Err(malformed());
        }
        let mut area = vec![0; (behind - start) as usize - size_of::<XattrHeader>()];
        self.read_checked(&mut area, start + size_of::<XattrHeader>() as u64)?;
        let mut rest = &area[..];
        while !rest.is_empty() {
            let (entry, bytes) = XattrEntry::read_from_prefix(rest).map_err(|_| malformed())?;
            let (name, value) = (usize::from(entry.name_len), usize::from(entry.value_size.get()));
            let (suffix, bytes) = bytes.split_at_checked(name).ok_or_else(malformed)?;
            let value = bytes.get(..value).ok_or_else(malformed)?.to_vec();
            let prefix = crate::tree::xattr_prefix(entry.name_index).ok_or_else(malformed)?;
            let used = (size_of::<XattrEntry>() + name + value.len()).next_multiple_of(4);
            xattrs.push(Xattr { name: [prefix, suffix].concat(), value });
            rest = rest.get(used..).ok_or_else(malformed)?;
        }
        xattrs.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(xattrs)
    }

    fn link_target(&self, symlink: u64) -> Result<Vec<u8>, FileSystemError> {
        if self.metadata(symlink)?.kind != FileKind::Symlink {
            return Err(damaged("not a symlink"));
        }
        self.content(symlink, limits::MAX_PATH_LENGTH as u64)
    }

    fn extents(&self, file: u64) -> Result<Vec<Extent>, FileSystemError> {
        let (inode, _, behind) = self.inode(file)?;
        self.places(&inode, behind)
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<()> {
        self.disk.read_exact_at(buffer, position)
    }
}
