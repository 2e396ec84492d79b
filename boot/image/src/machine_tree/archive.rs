// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The files of a machine as tar archives: a layer on its image (OCI image specification, "Image Layer Filesystem Changeset"), or all
//! of them. Sockets have no place in an archive and are left out. Memory is the names of files that have several.

use super::content::CopyError;
use super::walk::{ChangeKind, Event, Scope};
use super::{File, MachineTree, Source, TreeError, failed};
use crate::file_system::{FileKind, FileSystemError};
use crate::limits;
use crate::tar::{Entry, Kind, TarWriter, Time};
use crate::tree::{OPAQUE, WHITEOUT};
use std::collections::BTreeMap;
use std::io::Write;

/// Of a name in the table of hard links, besides the name.
const LINK_COST: usize = 2 * size_of::<((Source, u64), Box<[u8]>)>();

struct Archive<'a, W> {
    tree: &'a MachineTree,
    tar: TarWriter<W>,
    scope: Scope,
    /// The first names of files that have several.
    names: BTreeMap<(Source, u64), Box<[u8]>>,
    /// Bytes of files, holes included, that may still be written.
    left: u64,
    entries: u64,
}

impl MachineTree {
    /// Writes a layer that, applied to the image, gives the machine's files. Returns the number of its entries.
    ///
    /// # Errors
    /// A file system is damaged, a file cannot be in a layer, or `output` fails.
    pub fn write_layer(&self, output: impl Write) -> Result<u64, TreeError> {
        self.archive(Scope::Layer, output)
    }

    /// Writes all files, the root directory first. Returns the number of entries.
    ///
    /// # Errors
    /// As in [`Self::write_layer`].
    pub fn write_archive(&self, output: impl Write) -> Result<u64, TreeError> {
        self.archive(Scope::All, output)
    }

    fn archive(&self, scope: Scope, output: impl Write) -> Result<u64, TreeError> {
        let left = limits::MAX_UNCOMPRESSED_BYTES;
        let tar = TarWriter::new(output);
        let mut archive = Archive { tree: self, tar, scope, names: BTreeMap::new(), left, entries: 0 };
        self.walk(scope, &mut |event| archive.event(event))?;
        archive.tar.finish()?;
        Ok(archive.entries)
    }
}

impl<W: Write> Archive<'_, W> {
    fn event(&mut self, event: &Event<'_>) -> Result<(), TreeError> {
        let name = event.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let parent = &event.path[..event.path.len() - name.len()];
        if event.path.len() > limits::MAX_PATH_LENGTH {
            return Err(TreeError::file(event.path, "the path is too long for an archive"));
        }
        match event.file.filter(|file| file.metadata.kind != FileKind::Socket) {
            Some(_) if self.scope == Scope::Layer && name.starts_with(WHITEOUT) => {
                Err(TreeError::file(event.path, "a name that begins with `.wh.` has another meaning in a layer"))
            }
            Some(file) => {
                self.file(event.path, &file)?;
                if event.hides { self.mark(&[event.path, b"/", OPAQUE].concat()) } else { Ok(()) }
            }
            // A socket may replace a file of the image.
            None if self.scope == Scope::Layer && event.kind != ChangeKind::Added => {
                self.mark(&[parent, WHITEOUT, name].concat())
            }
            None => Ok(()),
        }
    }

    /// Writes an empty file whose name has a meaning.
    fn mark(&mut self, path: &[u8]) -> Result<(), TreeError> {
        self.entries += 1;
        Ok(self.tar.entry(&Entry { mode: 0, ..Entry::regular(path.to_vec(), 0) })?)
    }

    fn file(&mut self, path: &[u8], file: &File) -> Result<(), TreeError> {
        self.entries += 1;
        let metadata = &file.metadata;
        let kind = match metadata.kind {
            FileKind::Regular | FileKind::Socket => Kind::Regular,
            FileKind::Directory => Kind::Directory,
            FileKind::Symlink => Kind::Symlink,
            FileKind::CharDevice => Kind::CharacterDevice,
            FileKind::BlockDevice => Kind::BlockDevice,
            FileKind::Fifo => Kind::Fifo,
        };
        let (seconds, nanoseconds) = metadata.modified;
        let mut entry = Entry {
            kind,
            mode: metadata.permissions,
            uid: metadata.uid,
            gid: metadata.gid,
            mtime: Time { seconds, nanoseconds },
            device: metadata.device,
            ..Entry::regular(path.to_vec(), 0)
        };
        if kind == Kind::Directory {
            entry.path.extend_from_slice(if path.is_empty() { b"./" } else { b"/" });
        } else if metadata.links > 1 {
            if let Some(first) = self.names.get(&(file.source, file.number)) {
                let entry = Entry { kind: Kind::HardLink, link: first.to_vec(), ..entry };
                return Ok(self.tar.entry(&entry)?);
            }
            self.tree.charge(path.len() + LINK_COST)?;
            self.names.insert((file.source, file.number), path.into());
        }
        let xattrs = self.tree.xattrs(file)?.into_iter();
        // An empty value removes a PAX record.
        let xattrs = xattrs.filter(|xattr| !xattr.value.is_empty()).map(|xattr| (xattr.name, xattr.value));
        entry.xattrs = xattrs.collect();
        match kind {
            Kind::Symlink => entry.link = self.tree.link_target(file)?,
            Kind::Regular => return self.regular(path, file, entry),
            _ => {}
        }
        Ok(self.tar.entry(&entry)?)
    }

    fn regular(&mut self, path: &[u8], file: &File, entry: Entry) -> Result<(), TreeError> {
        let size = file.metadata.size;
        let left = self.left.checked_sub(size);
        self.left = left.ok_or_else(|| TreeError::file(path, "the files have more than 128 GiB, holes included"))?;
        self.tar.entry(&Entry { size, ..entry })?;
        let content = self.tree.content(file)?;
        let copied = content.copy(&mut |bytes| self.tar.write(bytes));
        copied.map_err(|error| match error {
            CopyError::Read(error) => failed(file.source)(FileSystemError::Read(error)),
            CopyError::Write(error) => TreeError::Write(error),
        })?;
        Ok(self.tar.end(size)?)
    }
}

const _: () = assert!(limits::MAX_UNCOMPRESSED_BYTES == 128 << 30, "as the message says");
