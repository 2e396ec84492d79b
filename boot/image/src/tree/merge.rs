// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Applies the entries of a layer to the tree, with the semantics of the OCI image specification
//! ("Image Layer Filesystem Changeset"): a later entry replaces an earlier one, `.wh.NAME` hides
//! NAME of lower layers, `.wh..wh..opq` hides all entries of lower layers in its directory.
//! Whiteouts never affect their own layer, in any order.

use super::fault::Fault;
use super::path::names;
use super::{Content, Metadata, Node, NodeId, Tree, Xattrs, xattr};
use crate::budget::Budget;
use crate::layer_files::{EntryReader, FilePlace};
use crate::limits;
use crate::tar::{Entry, Kind, printable};
use std::collections::HashSet;
use std::io;
use std::sync::Arc;

pub(crate) const WHITEOUT: &[u8] = b".wh.";
pub(crate) const OPAQUE: &[u8] = b".wh..wh..opq";
/// Metadata of aufs, which old versions of docker wrote into layers.
const AUFS: &[u8] = b".wh..wh.";

/// Merges layers into one tree.
pub(crate) struct Merge {
    tree: Tree,
    /// Number of the current layer, from 1.
    layer: u32,
    entries: u64,
    /// The sets of attributes so far: most files of an image with attributes have the same.
    xattrs: HashSet<Xattrs>,
    budget: Arc<Budget>,
}

#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    #[error("cannot read the entries of a layer in the image cache")]
    List(#[from] io::Error),
    #[error("entry `{entry}`: {fault}")]
    Entry { entry: String, fault: Fault },
}

/// A directory and a name in it, or no name for the root itself.
type Place = (NodeId, Option<Box<[u8]>>);

impl Merge {
    /// Starts with an empty tree.
    pub(crate) fn new(budget: Arc<Budget>) -> Self {
        Self { tree: Tree::new(budget.clone()), layer: 0, entries: 0, xattrs: HashSet::new(), budget }
    }

    /// Applies the entries of a layer, whose files have the number `files`.
    pub(crate) fn layer(&mut self, files: u32, mut entries: EntryReader) -> Result<(), MergeError> {
        self.layer += 1;
        while let Some((entry, data)) = entries.next_entry()? {
            let shown = printable(&entry.path);
            let of_entry = |fault| MergeError::Entry { entry: shown.clone(), fault };
            if let Some((parent, name)) = self.count().and_then(|()| self.place(&entry)).map_err(of_entry)? {
                let node = self.node(entry, files, data).map_err(of_entry)?;
                match name {
                    Some(name) => self.tree.put(parent, &name, node, self.layer).map_err(of_entry)?,
                    None => self.tree.nodes[parent.index()].metadata = node.metadata,
                }
            }
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Tree {
        self.tree
    }

    fn count(&mut self) -> Result<(), Fault> {
        self.entries += 1;
        if self.entries > limits::MAX_ENTRIES { Err(Fault::TooManyEntries) } else { Ok(()) }
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
            self.tree.link(parent, name, target, self.layer)?;
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

    /// Creates the node of an entry, whose data is at `place`.
    fn node(&mut self, entry: Entry, layer: u32, place: Option<FilePlace>) -> Result<Node, Fault> {
        let (major, minor) = entry.device;
        let device = || if major < 1 << 12 && minor < 1 << 20 { Ok(()) } else { Err(Fault::Device) };
        // Linux gives every symbolic link this mode, whatever the archive says.
        let mode = if entry.kind == Kind::Symlink { 0o777 } else { entry.mode };
        let content = match entry.kind {
            Kind::Directory => Content::Directory(Default::default()),
            Kind::Fifo => Content::Fifo,
            Kind::CharacterDevice => device().map(|()| Content::CharacterDevice { major, minor })?,
            Kind::BlockDevice => device().map(|()| Content::BlockDevice { major, minor })?,
            Kind::Symlink => {
                self.budget.charge_allocation(entry.link.len())?;
                Content::Symlink(symlink_target(entry.link)?)
            }
            Kind::Regular => {
                let place = place.expect("every regular file has a place");
                if let FilePlace::Sparse { extents, .. } = &place {
                    self.budget.charge_allocation(size_of_val(&**extents))?;
                }
                Content::Regular { size: entry.size, layer, place }
            }
            Kind::HardLink => unreachable!("hard links are applied when they are placed"),
        };
        let xattrs = self.shared_xattrs(entry.xattrs)?;
        let metadata = Metadata { mode, uid: entry.uid, gid: entry.gid, mtime: entry.mtime, xattrs };
        Ok(Node { metadata, content })
    }

    /// Returns the attributes that are kept; equal sets share their memory.
    fn shared_xattrs(&mut self, xattrs: Vec<(Vec<u8>, Vec<u8>)>) -> Result<Xattrs, Fault> {
        let xattrs = xattr::filter(xattrs)?;
        if let Some(shared) = self.xattrs.get(&xattrs) {
            return Ok(shared.clone());
        }
        for (name, value) in xattrs.iter() {
            self.budget.charge(size_of_val(&(name, value)) as u64)?;
            self.budget.charge_allocation(name.len())?;
            self.budget.charge_allocation(value.len())?;
        }
        // The set itself, and its place in the table.
        self.budget.charge_allocation(4 * size_of::<Xattrs>())?;
        self.xattrs.insert(xattrs.clone());
        Ok(xattrs)
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

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
