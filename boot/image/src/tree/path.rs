// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Paths out of an archive: cut into names, and followed inside the tree. None of them ever reaches the host.

use super::fault::Fault;
use super::{Content, Metadata, Node, NodeId, Tree};
use crate::limits;

/// The names of `path`, without empty ones and dots. `..` is refused: no tool that builds images writes it. A leading
/// slash means nothing, as with the container tools.
pub(super) fn names(path: &[u8]) -> Result<Vec<&[u8]>, Fault> {
    if path.is_empty() {
        return Err(Fault::NoName);
    }
    if path.len() > limits::PATH_BYTES {
        return Err(Fault::PathTooLong);
    }
    if path.contains(&0) {
        return Err(Fault::Nul);
    }
    let mut names = Vec::new();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => return Err(Fault::DotDot),
            name if name.len() > limits::NAME_BYTES => return Err(Fault::NameTooLong),
            name => names.push(name),
        }
    }
    Ok(names)
}

impl Tree {
    /// Follows `names` from the root to a directory, through symbolic links *inside the tree*, as the container tools
    /// do: an absolute target begins at the tree's root and `..` ends there. With `make` what is missing is made as a
    /// directory of this layer; without it the answer is `None`.
    pub(super) fn follow(&mut self, names: &[&[u8]], make: Option<u32>) -> Result<Option<NodeId>, Fault> {
        let mut chain = vec![Self::ROOT];
        let mut links = 0;
        // Names still to follow, the next one last.
        let mut ahead: Vec<Box<[u8]>> = names.iter().rev().map(|name| Box::from(*name)).collect();
        while let Some(name) = ahead.pop() {
            self.step()?;
            if *name == *b".." {
                if chain.len() > 1 {
                    chain.pop();
                }
                continue;
            }
            let here = chain[chain.len() - 1];
            let next = match (self.child(here, &name), make) {
                (Some(next), _) => next,
                (None, None) => return Ok(None),
                (None, Some(layer)) => {
                    if name.len() > limits::NAME_BYTES {
                        return Err(Fault::NameTooLong);
                    }
                    let id = self.add(Node::directory(Metadata { mode: 0o755, ..Metadata::default() }));
                    self.link(here, &name, id, layer);
                    id
                }
            };
            match &self.node(next).content {
                Content::Directory(_) => {
                    chain.push(next);
                    if chain.len() > limits::DEPTH {
                        return Err(Fault::TooDeep);
                    }
                }
                Content::Symlink(target) => {
                    links += 1;
                    if links > limits::SYMLINKS {
                        return Err(Fault::SymlinkLoop);
                    }
                    if target.starts_with(b"/") {
                        chain.truncate(1);
                    }
                    let parts = target.split(|byte| *byte == b'/').rev();
                    ahead.extend(parts.filter(|part| !part.is_empty() && *part != b".").map(Box::from));
                }
                _ => return Err(Fault::ParentIsNoDirectory(crate::tar::printable(&name))),
            }
        }
        Ok(chain.pop())
    }
}
