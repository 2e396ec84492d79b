// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Finds a file of a machine by its path. Symbolic links are followed inside the machine.

use super::walk::Place;
use super::{File, Found, MachineTree, TreeError};
use crate::file_system::FileKind;
use crate::limits;

/// A file that was found, for [`MachineTree::copy`].
#[derive(Clone, Debug)]
pub struct Location {
    /// Without symbolic links, and without a leading slash; empty for the root.
    pub(super) path: Vec<u8>,
    pub(super) file: File,
    /// Of a directory: what is in it.
    pub(super) below: Option<Place>,
}

impl Location {
    #[must_use]
    pub fn kind(&self) -> FileKind {
        self.file.metadata.kind
    }

    /// Its last name, or none of the root.
    #[must_use]
    pub fn name(&self) -> Option<&[u8]> {
        self.path.rsplit(|byte| *byte == b'/').next().filter(|name| !name.is_empty())
    }
}

impl MachineTree {
    /// The file at `path`, which begins at the root. A symbolic link at its end is followed if `follows_last`, or before a slash.
    ///
    /// # Errors
    /// There is no such file, or a file system is damaged.
    pub fn find_path(&self, path: &[u8], follows_last: bool) -> Result<Location, TreeError> {
        let fault = |what| TreeError::file(path.strip_prefix(b"/").unwrap_or(path), what);
        let root = self.top_location()?;
        let mut above = vec![root];
        let names = |path: &[u8]| path.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec).collect::<Vec<_>>();
        let mut left = names(path);
        let (mut links, mut steps) = (0, 0);
        while let Some(name) = left.pop() {
            steps += 1;
            if steps > limits::MAX_PATH_LENGTH || left.len() > limits::MAX_PATH_LENGTH {
                return Err(fault("the path is too long"));
            }
            let here = above.last().expect("the root stays");
            let Some(place) = here.below else { return Err(fault("not a directory")) };
            match &name[..] {
                b"" | b"." => continue,
                b".." => {
                    above.truncate((above.len() - 1).max(1));
                    continue;
                }
                _ => {}
            }
            let found = self.lookup(&here.path, &place, &name)?.ok_or_else(|| fault("no such file or directory"))?;
            if found.kind() == FileKind::Symlink && (follows_last || !left.is_empty()) {
                links += 1;
                if links > limits::MAX_SYMLINKS {
                    return Err(fault("too many symbolic links"));
                }
                let target = self.link_target(&found.file)?;
                if target.starts_with(b"/") {
                    above.truncate(1);
                }
                left.extend(names(&target));
                continue;
            }
            if above.len() == limits::MAX_DEPTH {
                return Err(fault("nested too deeply"));
            }
            above.push(found);
        }
        Ok(above.pop().expect("the root stays"))
    }

    fn lookup(&self, directory: &[u8], place: &Place, name: &[u8]) -> Result<Option<Location>, TreeError> {
        let children = self.children(place)?;
        self.release(&children);
        let Ok(index) = children.binary_search_by(|child| (*child.name).cmp(name)) else { return Ok(None) };
        let separator: &[u8] = if directory.is_empty() { b"" } else { b"/" };
        let path = [directory, separator, name].concat();
        let Found { now, before } = self.find(&path, &children[index], place.is_merged)?;
        let Some(file) = now else { return Ok(None) };
        let is_directory = file.metadata.kind == FileKind::Directory;
        let below = is_directory.then(|| self.place(&file, before.as_ref(), &path)).transpose()?;
        Ok(Some(Location { path, file, below }))
    }

    fn top_location(&self) -> Result<Location, TreeError> {
        Ok(Location { path: Vec::new(), file: self.root_file()?, below: Some(self.top()) })
    }
}
