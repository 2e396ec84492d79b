// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The files of a machine in the order of an archive: as a layer on its image (OCI image specification, "Image Layer Filesystem
//! Changeset"), all of them, or those below one path. Sockets are left out. Memory is the names of files that have several.

use super::content::CopyError;
use super::walk::{ChangeKind, Event, Scope};
use super::{File, Location, MachineTree, Source, TreeError, failed};
use crate::file_system::{FileKind, FileSystemError};
use crate::limits;
use crate::tar::{Entry, Kind, TarWriter, Time};
use crate::tree::{OPAQUE, WHITEOUT};
use std::collections::BTreeMap;
use std::io::{self, Write};

/// Of a name in the table of hard links, besides the name.
const LINK_COST: usize = 2 * size_of::<((Source, u64), Box<[u8]>)>();

/// Takes files one after the other, parents first.
pub trait FileSink {
    /// A file of any type. Of a regular one [`Self::data`] gets the bytes, then [`Self::end`] its size.
    ///
    /// # Errors
    /// It cannot be written, as in all methods.
    fn file(&mut self, entry: &Entry) -> io::Result<()>;

    /// # Errors
    /// See [`Self::file`].
    fn data(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// # Errors
    /// See [`Self::file`].
    fn end(&mut self, size: u64) -> io::Result<()>;
}

impl<W: Write> FileSink for TarWriter<W> {
    fn file(&mut self, entry: &Entry) -> io::Result<()> {
        self.entry(entry)
    }

    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write(bytes)
    }

    fn end(&mut self, size: u64) -> io::Result<()> {
        TarWriter::end(self, size)
    }
}

struct Archive<'a> {
    tree: &'a MachineTree,
    sink: &'a mut dyn FileSink,
    scope: Scope,
    /// In place of the first bytes of each path, of which there are as many.
    name: &'a [u8],
    replaced: usize,
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

    /// Writes all files as a tar archive, the root directory first. Returns the number of entries.
    ///
    /// # Errors
    /// As in [`Self::write_layer`].
    pub fn write_archive(&self, output: impl Write) -> Result<u64, TreeError> {
        self.archive(Scope::All, output)
    }

    fn archive(&self, scope: Scope, output: impl Write) -> Result<u64, TreeError> {
        let mut tar = TarWriter::new(output);
        let mut archive = Archive::new(self, scope, &mut tar, b"", 0);
        self.walk(scope, &mut |event| archive.event(event))?;
        let entries = archive.entries;
        tar.finish()?;
        Ok(entries)
    }

    /// Passes the file at `location`, and all that is below it, to `sink`, with `name` in place of its path.
    ///
    /// # Errors
    /// As in [`Self::write_layer`].
    pub fn copy(&self, location: &Location, name: &[u8], sink: &mut dyn FileSink) -> Result<(), TreeError> {
        let Location { path, file, below } = location;
        let mut archive = Archive::new(self, Scope::All, sink, name, path.len());
        let (kind, file) = (ChangeKind::Added, Some(*file));
        archive.event(&Event { path, kind, file, hides: false })?;
        match below {
            Some(place) => self.walk_from(*place, path.clone(), Scope::All, &mut |event| archive.event(event)),
            None => Ok(()),
        }
    }
}

impl<'a> Archive<'a> {
    fn new(tree: &'a MachineTree, scope: Scope, sink: &'a mut dyn FileSink, name: &'a [u8], replaced: usize) -> Self {
        let left = limits::MAX_UNCOMPRESSED_BYTES;
        Self { tree, sink, scope, name, replaced, names: BTreeMap::new(), left, entries: 0 }
    }

    /// The path that a file has in the archive.
    fn archived(&self, path: &[u8]) -> Vec<u8> {
        let rest = &path[self.replaced..];
        let rest = rest.strip_prefix(b"/").unwrap_or(rest);
        let separator: &[u8] = if self.name.is_empty() || rest.is_empty() { b"" } else { b"/" };
        [self.name, separator, rest].concat()
    }

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
        Ok(self.sink.file(&Entry { mode: 0, ..Entry::regular(path.to_vec(), 0) })?)
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
            ..Entry::regular(self.archived(path), 0)
        };
        if kind == Kind::Directory {
            entry.path.extend_from_slice(if entry.path.is_empty() { b"./" } else { b"/" });
        } else if metadata.links > 1 {
            if let Some(first) = self.names.get(&(file.source, file.number)) {
                let entry = Entry { kind: Kind::HardLink, link: first.to_vec(), ..entry };
                return Ok(self.sink.file(&entry)?);
            }
            self.tree.charge(entry.path.len() + LINK_COST)?;
            self.names.insert((file.source, file.number), entry.path.as_slice().into());
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
        Ok(self.sink.file(&entry)?)
    }

    fn regular(&mut self, path: &[u8], file: &File, entry: Entry) -> Result<(), TreeError> {
        let size = file.metadata.size;
        let left = self.left.checked_sub(size);
        self.left = left.ok_or_else(|| TreeError::file(path, "the files have more than 128 GiB, holes included"))?;
        self.sink.file(&Entry { size, stored: size, ..entry })?;
        let content = self.tree.content(file)?;
        let copied = content.copy(&mut |bytes| self.sink.data(bytes));
        copied.map_err(|error| match error {
            CopyError::Read(error) => failed(file.source)(FileSystemError::Read(error)),
            CopyError::Write(error) => TreeError::Write(error),
        })?;
        Ok(self.sink.end(size)?)
    }
}

const _: () = assert!(limits::MAX_UNCOMPRESSED_BYTES == 128 << 30, "as the message says");
