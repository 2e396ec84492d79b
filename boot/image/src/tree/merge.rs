// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Applies the entries of a layer to the tree, with the semantics of the OCI image specification
//! ("Image Layer Filesystem Changeset"): a later entry replaces an earlier one, `.wh.NAME` hides
//! NAME of lower layers, `.wh..wh..opq` hides all entries of lower layers in its directory.
//! Whiteouts never affect their own layer, in any order.

use super::fault::Fault;
use super::path::names;
use super::{Content, Data, Extent, Metadata, Node, NodeId, Tree, xattr};
use crate::limits;
use crate::spool::Spool;
use crate::tar::{Entry, Kind, Reader, TarError, TarInput, printable};
use std::io;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Metadata of aufs, which old versions of docker wrote into layers.
const AUFS: &[u8] = b".wh..wh.";

/// Merges layers into one tree.
pub(crate) struct Merge {
    tree: Tree,
    spool: Spool,
    /// Number of the current layer, from 1.
    layer: u32,
    entries: u64,
    extents: u64,
    xattr_bytes: u64,
    name_bytes: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    #[error(transparent)]
    Tar(#[from] TarError),
    #[error("entry `{entry}`: {fault}")]
    Entry { entry: String, fault: Fault },
    #[error("cannot write the temporary file for the image's data")]
    Spool(#[source] io::Error),
}

/// A directory and a name in it, or no name for the root itself.
type Place = (NodeId, Option<Box<[u8]>>);

impl Merge {
    /// Starts with an empty tree; file data goes to `spool`.
    pub(crate) fn new(spool: Spool) -> Self {
        Self { tree: Tree::new(), spool, layer: 0, entries: 0, extents: 0, xattr_bytes: 0, name_bytes: 0 }
    }

    /// Applies the layer in `input`. `each` is called after every entry.
    pub(crate) fn layer<I: TarInput>(&mut self, input: I, mut each: impl FnMut(&mut I)) -> Result<(), MergeError> {
        self.layer += 1;
        let mut reader = Reader::new(input);
        while let Some(entry) = reader.next_entry()? {
            let fault = self.count(&entry).and_then(|()| self.place(&entry));
            let place = fault.map_err(|fault| MergeError::Entry { entry: printable(&entry.path), fault })?;
            if let Some((parent, name)) = place {
                let node = self.node(entry, &mut reader)?;
                match name {
                    Some(name) => self.tree.put(parent, &name, node, self.layer),
                    None => self.tree.nodes[parent.index()].metadata = node.metadata,
                }
            }
            each(reader.input());
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> (Tree, Spool) {
        (self.tree, self.spool)
    }

    fn count(&mut self, entry: &Entry) -> Result<(), Fault> {
        self.entries += 1;
        self.extents += entry.extents.as_ref().map_or(0, |extents| extents.len() as u64);
        self.name_bytes += (entry.path.len() + entry.link.len()) as u64;
        self.xattr_bytes += entry.xattrs.iter().map(|(name, value)| (name.len() + value.len()) as u64).sum::<u64>();
        // Missing parents are created without an entry of their own.
        if self.entries > limits::MAX_ENTRIES || self.tree.len() as u64 > limits::MAX_ENTRIES {
            return Err(Fault::TooManyEntries);
        }
        if self.extents > limits::MAX_SPARSE_EXTENTS {
            return Err(Fault::TooManyExtents);
        }
        if self.name_bytes > limits::MAX_NAME_BYTES {
            return Err(Fault::TooManyNames);
        }
        if self.xattr_bytes > limits::MAX_XATTR_BYTES {
            return Err(Fault::TooManyXattrs);
        }
        Ok(())
    }

    /// Returns where the entry goes, or `None` for whiteouts and hard links, which are applied
    /// here.
    fn place(&mut self, entry: &Entry) -> Result<Option<Place>, Fault> {
        let names = names(&entry.path)?;
        let Some((name, parents)) = names.split_last() else {
            return match entry.kind {
                Kind::Directory => Ok(Some((Tree::ROOT, None))),
                _ => Err(Fault::RootNotADirectory),
            };
        };
        if self.whiteout(name, parents)? {
            return Ok(None);
        }
        let target = match entry.kind {
            Kind::HardLink => Some(self.target(&entry.link)?),
            _ => None,
        };
        let parent = self.tree.follow(parents, Some(self.layer))?.expect("missing directories have been created");
        if let Some(target) = target {
            self.tree.link(parent, name, target, self.layer);
            return Ok(None);
        }
        Ok(Some((parent, Some(Box::from(*name)))))
    }

    /// Applies a whiteout; false if the entry is not one.
    fn whiteout(&mut self, name: &[u8], parents: &[&[u8]]) -> Result<bool, Fault> {
        if parents.iter().any(|parent| parent.starts_with(AUFS)) || (name.starts_with(AUFS) && name != OPAQUE) {
            return Ok(true);
        }
        if parents.iter().any(|parent| parent.starts_with(WHITEOUT)) {
            return Err(Fault::Whiteout);
        }
        let Some(hidden) = name.strip_prefix(WHITEOUT) else { return Ok(false) };
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(Fault::Whiteout);
        }
        if let Some(parent) = self.tree.follow(parents, None)? {
            match name {
                OPAQUE => self.tree.hide_children(parent, self.layer)?,
                _ => self.tree.hide(parent, hidden, self.layer)?,
            }
        }
        Ok(true)
    }

    /// Returns the target of a hard link. Symbolic links in its parents are followed; a symbolic
    /// link at the end is itself the target.
    fn target(&mut self, link: &[u8]) -> Result<NodeId, Fault> {
        let missing = || Fault::TargetMissing(printable(link));
        let directory = || Fault::TargetIsDirectory(printable(link));
        let names = names(link).map_err(|fault| if fault == Fault::NoName { Fault::NoTarget } else { fault })?;
        let (name, parents) = names.split_last().ok_or_else(directory)?;
        let parent = self.tree.follow(parents, None)?.ok_or_else(missing)?;
        let target = self.tree.child(parent, name).ok_or_else(missing)?;
        if self.tree.children(target).is_some() { Err(directory()) } else { Ok(target) }
    }

    /// Creates the node of an entry, with its data in the spool.
    fn node<I: TarInput>(&mut self, entry: Entry, reader: &mut Reader<I>) -> Result<Node, MergeError> {
        let fault = |fault| MergeError::Entry { entry: printable(&entry.path), fault };
        let (major, minor) = entry.device;
        let device = || if major < 1 << 12 && minor < 1 << 20 { Ok(()) } else { Err(fault(Fault::Device)) };
        let content = match entry.kind {
            Kind::Directory => Content::Directory(Default::default()),
            Kind::Fifo => Content::Fifo,
            Kind::CharacterDevice => device().map(|()| Content::CharacterDevice { major, minor })?,
            Kind::BlockDevice => device().map(|()| Content::BlockDevice { major, minor })?,
            Kind::Symlink => Content::Symlink(symlink_target(entry.link).map_err(fault)?),
            Kind::Regular => {
                let start = self.spool.length();
                spool_data(&mut self.spool, reader)?;
                let data = match entry.extents {
                    None => Data::Contiguous(start),
                    Some(extents) => Data::Sparse(spooled(extents, start)),
                };
                Content::Regular { size: entry.size, data }
            }
            Kind::HardLink => unreachable!("hard links are applied when they are placed"),
        };
        let xattrs =
            xattr::filter(entry.xattrs).map_err(|fault| MergeError::Entry { entry: printable(&entry.path), fault })?;
        let metadata = Metadata { mode: entry.mode, uid: entry.uid, gid: entry.gid, mtime: entry.mtime, xattrs };
        Ok(Node { metadata, content })
    }
}

fn symlink_target(link: Vec<u8>) -> Result<Box<[u8]>, Fault> {
    match link.len() {
        0 => Err(Fault::NoTarget),
        length if length > limits::MAX_PATH_LENGTH => Err(Fault::PathTooLong),
        _ if link.contains(&0) => Err(Fault::Nul),
        _ => Ok(link.into()),
    }
}

fn spool_data<I: TarInput>(spool: &mut Spool, reader: &mut Reader<I>) -> Result<(), MergeError> {
    loop {
        let data = reader.data()?;
        if data.is_empty() {
            return Ok(());
        }
        spool.append(data).map_err(MergeError::Spool)?;
        let count = data.len();
        reader.consume(count);
    }
}

/// Converts extents whose bytes are contiguous in the spool.
fn spooled(extents: Vec<(u64, u64)>, mut spooled: u64) -> Box<[Extent]> {
    let extents = extents.into_iter().map(|(offset, length)| {
        let extent = Extent { offset, length, spooled };
        spooled += length;
        extent
    });
    extents.collect()
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
