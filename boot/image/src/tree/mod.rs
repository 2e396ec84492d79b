// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The merged file tree, in memory; the data of files is in the files of their layers. Directories refer to nodes
//! by number, so that hard links are names of one node and a deep tree is dropped without
//! recursion.

mod fault;
mod merge;
mod path;
mod xattr;

pub(crate) use xattr::{namespace as xattr_namespace, prefix as xattr_prefix};

pub use fault::Fault;
pub use merge::MergeError;
pub(crate) use merge::{Merge, OPAQUE, WHITEOUT};

use crate::budget::Budget;
use crate::layer_files::FilePlace;
use crate::limits;
use crate::tar::Time;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Memory of a node, with its place in the plan of the root disk.
const NODE_BYTES: u64 = size_of::<Node>() as u64 + 100;
/// Memory of a name in a directory, besides the name: nodes of the map are at least half full.
const CHILD_BYTES: u64 = 2 * (size_of::<Box<[u8]>>() + size_of::<Child>()) as u64;
/// The map's first node has room for eleven names.
const FIRST_CHILD_BYTES: u64 = 6 * CHILD_BYTES;
/// Names above which a directory's encoded form counts.
const LARGE_DIRECTORY: usize = 4096;
/// Memory of a name in the encoded form, besides the name.
const ENCODED_CHILD_BYTES: u64 = 64;

/// The nodes of all layers. Replaced ones are kept: the number of entries is bounded.
pub(crate) struct Tree {
    nodes: Vec<Node>,
    budget: Arc<Budget>,
    /// Names visited so far, bounded by [`limits::MAX_STEPS`].
    steps: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeId(u32);

impl NodeId {
    /// Less than [`Tree::len`].
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// A file of any type, without its name.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub metadata: Metadata,
    pub content: Content,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Metadata {
    /// Permission bits with set-id and sticky.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Time,
    pub xattrs: Xattrs,
}

/// Full names and values, sorted by name. Equal sets are shared.
pub(crate) type Xattrs = Arc<[(Box<[u8]>, Box<[u8]>)]>;

#[derive(Clone, Debug)]
pub(crate) enum Content {
    Directory(BTreeMap<Box<[u8]>, Child>),
    Regular {
        size: u64,
        /// Number of the [layer's files](crate::layer_files), from 0.
        layer: u32,
        place: FilePlace,
    },
    Symlink(Box<[u8]>),
    CharacterDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
    Fifo,
}

/// A name in a directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Child {
    pub node: NodeId,
    /// Number of the last layer with this name: whiteouts hide entries of lower layers only.
    layer: u32,
}

impl Tree {
    pub(crate) const ROOT: NodeId = NodeId(0);

    /// Starts with a root that all users may read.
    pub(crate) fn new(budget: Arc<Budget>) -> Self {
        Self { nodes: vec![Node::directory(Metadata { mode: 0o755, ..Metadata::default() })], budget, steps: 0 }
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// Upper bound of all node numbers.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    fn add(&mut self, node: Node) -> Result<NodeId, Fault> {
        self.budget.charge(NODE_BYTES)?;
        // The limit on entries keeps the number of nodes far below 2^32.
        let id = NodeId(self.nodes.len() as u32);
        self.nodes.push(node);
        Ok(id)
    }

    /// The names in `id`, or `None` if it is not a directory.
    pub(crate) fn children(&self, id: NodeId) -> Option<&BTreeMap<Box<[u8]>, Child>> {
        match &self.node(id).content {
            Content::Directory(children) => Some(children),
            _ => None,
        }
    }

    fn children_mut(&mut self, id: NodeId) -> Option<&mut BTreeMap<Box<[u8]>, Child>> {
        match &mut self.nodes[id.index()].content {
            Content::Directory(children) => Some(children),
            _ => None,
        }
    }

    fn child(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        self.children(directory)?.get(name).map(|child| child.node)
    }

    /// Adds `node` as `name` in `directory`. A directory that replaces a directory keeps its
    /// children.
    fn put(&mut self, directory: NodeId, name: &[u8], node: Node, layer: u32) -> Result<(), Fault> {
        let old = self.child(directory, name).filter(|old| self.children(*old).is_some());
        let id = match (old, &node.content) {
            (Some(old), Content::Directory(_)) => {
                self.nodes[old.index()].metadata = node.metadata;
                old
            }
            _ => self.add(node)?,
        };
        self.link(directory, name, id, layer)
    }

    /// Adds an existing node as `name` in `directory`, replacing the node with that name.
    fn link(&mut self, directory: NodeId, name: &[u8], node: NodeId, layer: u32) -> Result<(), Fault> {
        let budget = self.budget.clone();
        let children = self.children_mut(directory).expect("names are added to directories only");
        if let Some(child) = children.get_mut(name) {
            *child = Child { node, layer };
            return Ok(());
        }
        let first = if children.is_empty() { FIRST_CHILD_BYTES } else { 0 };
        // A directory is encoded in memory before it is written, which counts for large ones.
        let encoded = if children.len() < LARGE_DIRECTORY { 0 } else { name.len() as u64 + ENCODED_CHILD_BYTES };
        budget.charge(CHILD_BYTES + first + encoded)?;
        budget.charge_allocation(name.len())?;
        children.insert(name.into(), Child { node, layer });
        Ok(())
    }

    /// Removes the entries of layers before `layer` from `directory`, at any depth. The depth of
    /// the tree is bounded.
    fn hide_children(&mut self, directory: NodeId, layer: u32) -> Result<(), Fault> {
        let Some(children) = self.children(directory) else { return Ok(()) };
        let names: Vec<Box<[u8]>> = children.keys().cloned().collect();
        names.iter().try_for_each(|name| self.hide(directory, name, layer))
    }

    /// The same for one name in `directory`.
    fn hide(&mut self, directory: NodeId, name: &[u8], layer: u32) -> Result<(), Fault> {
        self.step()?;
        let Some(child) = self.children(directory).and_then(|children| children.get(name)).copied() else {
            return Ok(());
        };
        self.hide_children(child.node, layer)?;
        let empty = self.children(child.node).is_none_or(BTreeMap::is_empty);
        if child.layer < layer && empty {
            let children = self.children_mut(directory).expect("it had a child");
            children.remove(name);
        }
        Ok(())
    }

    /// Counts one visited name.
    fn step(&mut self) -> Result<(), Fault> {
        self.steps += 1;
        if self.steps > limits::MAX_STEPS { Err(Fault::TooManySteps) } else { Ok(()) }
    }
}

impl Node {
    fn directory(metadata: Metadata) -> Self {
        Self { metadata, content: Content::Directory(BTreeMap::new()) }
    }
}
