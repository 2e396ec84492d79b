// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The files that the guest knows by number. A file is stored as its directory and its name there,
//! and opened again on use, so that the number of files is bounded by memory and not by descriptors; the
//! descriptors of recently used ones are kept.

use super::host_file::{self, Key};
use super::wire::ROOT;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::collections::{HashMap, VecDeque};
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Bound of the whole table. A guest that holds more files gets `ENOMEM` for the next.
const MAX_BYTES: usize = 64 << 20;
/// Bytes of a file in both maps, besides its name.
const INODE_SIZE: usize = 256;
/// Directories between a file and the root.
const MAX_DEPTH: usize = 1024;

#[derive(Debug)]
struct Inode {
    key: Key,
    /// Where it was seen last.
    parent: u64,
    name: CString,
    /// Times that the guest was told this number, and has not forgotten.
    lookups: u64,
    /// It is never opened.
    closed: bool,
    path: Option<Arc<OwnedFd>>,
}

#[derive(Debug)]
pub(super) struct Inodes {
    root: Arc<OwnedFd>,
    root_key: Key,
    inodes: HashMap<u64, Inode>,
    by_key: HashMap<Key, u64>,
    /// Files whose descriptors are kept, the oldest first.
    kept: VecDeque<u64>,
    max_kept: usize,
    bytes: usize,
    max_bytes: usize,
    next: u64,
}

impl Inodes {
    pub(super) fn new(root: Arc<OwnedFd>, root_key: Key, max_kept: usize) -> Self {
        Self {
            root,
            root_key,
            inodes: HashMap::new(),
            by_key: HashMap::new(),
            kept: VecDeque::new(),
            max_kept,
            bytes: 0,
            max_bytes: MAX_BYTES,
            next: ROOT + 1,
        }
    }

    #[cfg(test)]
    pub(super) fn set_max_bytes(&mut self, max_bytes: usize) {
        self.max_bytes = max_bytes;
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.inodes.len(), self.by_key.len());
        assert!(self.kept.len() <= self.max_kept);
        self.inodes.len()
    }

    pub(super) fn key(&self, node: u64) -> Result<Key, Errno> {
        if node == ROOT {
            return Ok(self.root_key);
        }
        Ok(self.inodes.get(&node).ok_or(Errno::STALE)?.key)
    }

    /// The number of the file `key`, opened as `path`, which is `name` of `parent`. It counts as told to the
    /// guest.
    pub(super) fn enter(&mut self, key: Key, parent: u64, name: &CStr, path: OwnedFd) -> Result<u64, Errno> {
        if key == self.root_key {
            return Ok(ROOT);
        }
        let node = self.add(key, parent, name)?;
        if self.inodes.get(&node).is_some_and(|inode| inode.path.is_none()) {
            self.keep(node, Arc::new(path));
        }
        Ok(node)
    }

    /// The same for a directory that the guest cannot enter.
    pub(super) fn enter_closed(&mut self, key: Key, parent: u64, name: &CStr) -> Result<u64, Errno> {
        let node = self.add(key, parent, name)?;
        if let Some(inode) = self.inodes.get_mut(&node) {
            inode.closed = true;
        }
        Ok(node)
    }

    pub(super) fn is_closed(&self, node: u64) -> bool {
        self.inodes.get(&node).is_some_and(|inode| inode.closed)
    }

    fn add(&mut self, key: Key, parent: u64, name: &CStr) -> Result<u64, Errno> {
        let node = match self.by_key.get(&key) {
            Some(&node) => {
                self.relocate(key, parent, name);
                node
            }
            None => {
                let bytes = INODE_SIZE + name.count_bytes();
                if self.bytes + bytes > self.max_bytes {
                    return Err(Errno::NOMEM);
                }
                self.bytes += bytes;
                let node = self.next;
                self.next += 1;
                self.by_key.insert(key, node);
                self.inodes
                    .insert(node, Inode { key, parent, name: name.to_owned(), lookups: 0, closed: false, path: None });
                node
            }
        };
        let inode = self.inodes.get_mut(&node).ok_or(Errno::STALE)?;
        inode.lookups = inode.lookups.saturating_add(1);
        Ok(node)
    }

    /// The file `key`, if it is known, is now `name` of `parent`.
    pub(super) fn relocate(&mut self, key: Key, parent: u64, name: &CStr) {
        let Some(inode) = self.by_key.get(&key).and_then(|node| self.inodes.get_mut(node)) else { return };
        // A name has at most 255 bytes, so that this moves the bound of the table by little.
        self.bytes = self.bytes - inode.name.count_bytes() + name.count_bytes();
        inode.name = name.to_owned();
        inode.parent = parent;
    }

    /// The guest forgets `lookups` of the times that it was told `node`.
    pub(super) fn forget(&mut self, node: u64, lookups: u64) {
        let Some(inode) = self.inodes.get_mut(&node) else { return };
        inode.lookups = inode.lookups.saturating_sub(lookups);
        if inode.lookups == 0 {
            self.bytes -= INODE_SIZE + inode.name.count_bytes();
            self.by_key.remove(&inode.key);
            self.inodes.remove(&node);
        }
    }

    /// An `O_PATH` descriptor of the file. `ESTALE` if it is no longer where it was seen, `EACCES` if it is closed to the guest.
    pub(super) fn open(&mut self, node: u64) -> Result<Arc<OwnedFd>, Errno> {
        let (mut closed, mut at) = (Vec::new(), node);
        let mut path = loop {
            if at == ROOT {
                break Arc::clone(&self.root);
            }
            let inode = self.inodes.get(&at).ok_or(Errno::STALE)?;
            if inode.closed {
                return Err(Errno::ACCESS);
            }
            if let Some(path) = &inode.path {
                break Arc::clone(path);
            }
            if closed.len() == MAX_DEPTH {
                return Err(Errno::LOOP);
            }
            closed.push(at);
            at = inode.parent;
        };
        for node in closed.into_iter().rev() {
            let inode = self.inodes.get(&node).ok_or(Errno::STALE)?;
            let opened = host_file::open_at(&path, &inode.name, OFlags::PATH, Mode::empty());
            let opened = opened.map_err(|error| if error == Errno::NOENT { Errno::STALE } else { error })?;
            if Key::of(&host_file::status(&opened)?) != inode.key {
                return Err(Errno::STALE);
            }
            path = Arc::new(opened);
            self.keep(node, Arc::clone(&path));
        }
        Ok(path)
    }

    fn keep(&mut self, node: u64, path: Arc<OwnedFd>) {
        while self.kept.len() >= self.max_kept {
            let Some(oldest) = self.kept.pop_front() else { break };
            if let Some(inode) = self.inodes.get_mut(&oldest) {
                inode.path = None;
            }
        }
        if let Some(inode) = self.inodes.get_mut(&node) {
            inode.path = Some(path);
            self.kept.push_back(node);
        }
    }
}
