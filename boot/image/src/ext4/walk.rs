// SPDX-License-Identifier: Apache-2.0 OR MIT
//! All files below a directory.

use super::{Ext4, Ext4Error, FileKind, Inode, Xattr};
use std::collections::BTreeSet;

const ROOT: u32 = 2;

#[derive(Clone, Debug)]
pub struct Node {
    /// Below the directory of the walk, without a leading slash.
    pub path: Vec<u8>,
    pub inode: Inode,
    pub xattrs: Vec<Xattr>,
}

impl Node {
    /// The image's directory of the same path is hidden.
    #[must_use]
    pub fn is_opaque(&self) -> bool {
        self.xattrs.iter().any(|xattr| xattr.name == b"trusted.overlay.opaque" && xattr.value == b"y")
    }
}

impl Ext4 {
    /// What is below the directory `path`, sorted by bytes of the path. Symlinks are not followed.
    ///
    /// # Errors
    /// The directory is not there, or something below it is damaged or too large.
    pub fn walk(&self, path: &str) -> Result<Vec<Node>, Ext4Error> {
        let mut directory = self.inode(ROOT)?;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let missing = || Ext4Error::Missing(path.to_owned());
            let entries = self.entries(&directory)?;
            let (_, number) = entries.iter().find(|(entry, _)| entry == name.as_bytes()).ok_or_else(missing)?;
            directory = self.inode(*number)?;
        }
        let mut nodes: Vec<Node> = Vec::new();
        let mut seen = BTreeSet::from([directory.number]);
        let mut pending = vec![(Vec::new(), directory)];
        while let Some((parent, directory)) = pending.pop() {
            for (name, number) in self.entries(&directory)? {
                let inode = self.inode(number)?;
                let mut path = parent.clone();
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend(name);
                // A pending directory is held twice.
                self.charge(2 * (path.len() + inode.tail.len() + size_of::<Node>()))?;
                if inode.kind == FileKind::Directory {
                    if !seen.insert(number) {
                        return Err(Ext4Error::Damaged("a directory has two names"));
                    }
                    pending.push((path.clone(), inode.clone()));
                }
                let xattrs = self.xattrs(&inode)?;
                nodes.push(Node { path, inode, xattrs });
            }
        }
        nodes.sort_by(|a, b| a.path.cmp(&b.path));
        if nodes.windows(2).any(|pair| pair[0].path == pair[1].path) {
            return Err(Ext4Error::Damaged("two entries with one name"));
        }
        Ok(nodes)
    }
}
