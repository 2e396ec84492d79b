// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Files that the guest has open, by number.

use rustix::io::Errno;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

#[derive(Debug)]
struct Handle {
    node: u64,
    is_directory: bool,
    file: Arc<OwnedFd>,
}

#[derive(Debug)]
pub(super) struct Handles {
    open: HashMap<u64, Handle>,
    max: usize,
    next: u64,
}

impl Handles {
    /// At most `max` at a time.
    pub(super) fn new(max: usize) -> Self {
        Self { open: HashMap::new(), max, next: 1 }
    }

    /// Rejects one more before it is opened.
    pub(super) fn check_space(&self) -> Result<(), Errno> {
        if self.open.len() < self.max { Ok(()) } else { Err(Errno::NFILE) }
    }

    pub(super) fn insert(&mut self, node: u64, is_directory: bool, file: OwnedFd) -> Result<u64, Errno> {
        self.check_space()?;
        let number = self.next;
        self.next += 1;
        self.open.insert(number, Handle { node, is_directory, file: Arc::new(file) });
        Ok(number)
    }

    pub(super) fn file(&self, number: u64) -> Result<Arc<OwnedFd>, Errno> {
        self.get(number, false)
    }

    pub(super) fn directory(&self, number: u64) -> Result<Arc<OwnedFd>, Errno> {
        self.get(number, true)
    }

    fn get(&self, number: u64, is_directory: bool) -> Result<Arc<OwnedFd>, Errno> {
        let handle = self.open.get(&number).filter(|handle| handle.is_directory == is_directory);
        Ok(Arc::clone(&handle.ok_or(Errno::BADF)?.file))
    }

    /// Any open file of `node`: one that was deleted has no other way to it.
    pub(super) fn of_node(&self, node: u64) -> Option<Arc<OwnedFd>> {
        self.open.values().find(|handle| handle.node == node).map(|handle| Arc::clone(&handle.file))
    }

    pub(super) fn remove(&mut self, number: u64) -> Result<(), Errno> {
        self.open.remove(&number).map(drop).ok_or(Errno::BADF)
    }
}
