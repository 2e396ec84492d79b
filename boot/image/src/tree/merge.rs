// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Applies the entries of a layer to the tree, with the semantics of the OCI image specification ("Image Layer
//! Filesystem Changeset"): a later entry replaces an earlier one, `.wh.NAME` hides NAME of lower layers, `.wh..wh..opq`
//! hides all that lower layers have in its directory. Whiteouts never touch what their own layer brings, in whichever
//! order.

use super::fault::Fault;
use super::path::names;
use super::{Content, Data, Extent, Metadata, Node, NodeId, Tree, xattr};
use crate::limits;
use crate::spool::Spool;
use crate::tar::{Entry, Kind, Reader, TarError, TarInput, printable};
use std::io;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Book-keeping of aufs, which old docker wrote into layers.
const AUFS: &[u8] = b".wh..wh.";

/// Layers going into one tree.
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

/// A layer cannot be merged.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// The archive is broken.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// An entry is not acceptable.
    #[error("entry `{entry}`: {fault}")]
    Entry {
        entry: String,
        /// What is wrong with it.
        fault: Fault,
    },
    /// The host cannot keep the data.
    #[error("cannot write the temporary file for the image's data")]
    Spool(#[source] io::Error),
}

/// A directory and a name in it; no name for the root itself.
type Place = (NodeId, Option<Box<[u8]>>);

impl Merge {
    /// An empty tree; file data goes to `spool`.
    pub(crate) fn new(spool: Spool) -> Self {
        Self { tree: Tree::new(), spool, layer: 0, entries: 0, extents: 0, xattr_bytes: 0, name_bytes: 0 }
    }

    /// Puts the layer that `input` holds over what is there. `each` is called after every entry.
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

    /// The tree and its data.
    pub(crate) fn finish(self) -> (Tree, Spool) {
        (self.tree, self.spool)
    }

    fn count(&mut self, entry: &Entry) -> Result<(), Fault> {
        self.entries += 1;
        self.extents += entry.extents.as_ref().map_or(0, |extents| extents.len() as u64);
        self.name_bytes += (entry.path.len() + entry.link.len()) as u64;
        self.xattr_bytes += entry.xattrs.iter().map(|(name, value)| (name.len() + value.len()) as u64).sum::<u64>();
        // Directories that a path implies are made without an entry of their own.
        if self.entries > limits::ENTRIES || self.tree.len() as u64 > limits::ENTRIES {
            return Err(Fault::TooManyEntries);
        }
        if self.extents > limits::SPARSE_EXTENTS {
            return Err(Fault::TooManyExtents);
        }
        if self.name_bytes > limits::NAME_BYTES_TOTAL {
            return Err(Fault::TooManyNames);
        }
        if self.xattr_bytes > limits::XATTR_BYTES {
            return Err(Fault::TooManyXattrs);
        }
        Ok(())
    }

    /// Where the entry goes. `None` if nothing is to be made:
    /// whiteouts and hard links are done here.
    fn place(&mut self, entry: &Entry) -> Result<Option<Place>, Fault> {
        let names = names(&entry.path)?;
        let Some((name, parents)) = names.split_last() else {
            return match entry.kind {
                Kind::Directory => Ok(Some((Tree::ROOT, None))),
                _ => Err(Fault::RootIsNoDirectory),
            };
        };
        if self.whiteout(name, parents)? {
            return Ok(None);
        }
        let target = match entry.kind {
            Kind::HardLink => Some(self.target(&entry.link)?),
            _ => None,
        };
        let parent = self.tree.follow(parents, Some(self.layer))?.expect("what was missing has been made");
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

    /// The node that a hard link names: symbolic links on the way are followed, one at the end is itself the target.
    fn target(&mut self, link: &[u8]) -> Result<NodeId, Fault> {
        let missing = || Fault::TargetMissing(printable(link));
        let directory = || Fault::TargetIsDirectory(printable(link));
        let names = names(link).map_err(|fault| if fault == Fault::NoName { Fault::NoTarget } else { fault })?;
        let (name, parents) = names.split_last().ok_or_else(directory)?;
        let parent = self.tree.follow(parents, None)?.ok_or_else(missing)?;
        let target = self.tree.child(parent, name).ok_or_else(missing)?;
        if self.tree.children(target).is_some() { Err(directory()) } else { Ok(target) }
    }

    /// The node that an entry describes, its data in the spool.
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
                    None => Data::Whole(start),
                    Some(extents) => Data::Sparse(spooled(extents, start)),
                };
                Content::Regular { size: entry.size, data }
            }
            Kind::HardLink => unreachable!("hard links are made when they are placed"),
        };
        let xattrs =
            xattr::kept(entry.xattrs).map_err(|fault| MergeError::Entry { entry: printable(&entry.path), fault })?;
        let metadata = Metadata { mode: entry.mode, uid: entry.uid, gid: entry.gid, mtime: entry.mtime, xattrs };
        Ok(Node { metadata, content })
    }
}

fn symlink_target(link: Vec<u8>) -> Result<Box<[u8]>, Fault> {
    match link.len() {
        0 => Err(Fault::NoTarget),
        length if length > limits::PATH_BYTES => Err(Fault::PathTooLong),
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

/// Extents whose bytes lie one after another in the spool.
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
