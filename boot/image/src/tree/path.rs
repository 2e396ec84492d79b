// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Paths from an archive: split into names, and resolved inside the tree. They never become host
//! paths.

use super::fault::Fault;
use super::merge::WHITEOUT;
use super::{Content, Metadata, Node, NodeId, Tree};
use crate::limits;

/// Splits `path` into names, without empty ones and dots. `..` is rejected: no tool that builds
/// images writes it. A leading slash is ignored, as in the container tools.
pub(super) fn names(path: &[u8]) -> Result<Vec<&[u8]>, Fault> {
    if path.is_empty() {
        return Err(Fault::NoName);
    }
    if path.len() > limits::MAX_PATH_LENGTH {
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
            // A whiteout hides a name of any length, and is never a file itself.
            name if name.strip_prefix(WHITEOUT).unwrap_or(name).len() > limits::MAX_NAME_LENGTH => {
                return Err(Fault::NameTooLong);
            }
            name => names.push(name),
        }
    }
    Ok(names)
}

impl Tree {
    /// Resolves `names` from the root to a directory, through symbolic links *inside the tree*, as
    /// the container tools do: an absolute target starts at the tree's root, and `..` stops there.
    /// With `create`, missing directories are created in that layer; without it the result is
    /// `None`.
    pub(super) fn follow(&mut self, names: &[&[u8]], create: Option<u32>) -> Result<Option<NodeId>, Fault> {
        let mut chain = vec![Self::ROOT];
        let mut links = 0;
        // Remaining names, the next one last.
        let mut remaining: Vec<Box<[u8]>> = names.iter().rev().map(|name| Box::from(*name)).collect();
        while let Some(name) = remaining.pop() {
            self.step()?;
            if *name == *b".." {
                if chain.len() > 1 {
                    chain.pop();
                }
                continue;
            }
            let here = chain[chain.len() - 1];
            let next = match (self.child(here, &name), create) {
                (Some(next), _) => next,
                (None, None) => return Ok(None),
                (None, Some(layer)) => {
                    if name.len() > limits::MAX_NAME_LENGTH {
                        return Err(Fault::NameTooLong);
                    }
                    let id = self.add(Node::directory(Metadata { mode: 0o755, ..Metadata::default() }))?;
                    self.link(here, &name, id, layer)?;
                    id
                }
            };
            match &self.node(next).content {
                Content::Directory(_) => {
                    chain.push(next);
                    if chain.len() > limits::MAX_DEPTH {
                        return Err(Fault::TooDeep);
                    }
                }
                Content::Symlink(target) => {
                    links += 1;
                    if links > limits::MAX_SYMLINKS {
                        return Err(Fault::SymlinkLoop);
                    }
                    if target.starts_with(b"/") {
                        chain.truncate(1);
                    }
                    let parts = target.split(|byte| *byte == b'/').rev();
                    remaining.extend(parts.filter(|part| !part.is_empty() && *part != b".").map(Box::from));
                }
                _ => return Err(Fault::ParentNotADirectory(crate::tar::printable(&name))),
            }
        }
        Ok(chain.pop())
    }
}
