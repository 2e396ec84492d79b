// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Walks over a machine's files: directory by directory, so that memory is what the directories above a file have as entries.

use super::{Child, File, Found, MachineTree, Source, TreeError, failed};
use crate::file_system::{FileKind, FileSystemError};
use crate::limits;
use std::collections::BTreeSet;
use std::vec;

/// How a path of the machine differs from the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    Added,
    Changed,
    Deleted,
}

/// Which paths are visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Those that differ from the image.
    Changes,
    /// Those that a layer on the image has to have: below an opaque directory, all that is there and nothing that is not.
    Layer,
    /// All that are there.
    All,
}

/// A directory in both layers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) upper: Option<u64>,
    pub(super) lower: Option<u64>,
    /// The names of the lower one are visible.
    pub(super) is_merged: bool,
}

/// A path that is visited.
#[derive(Debug)]
pub(super) struct Event<'a> {
    /// Below the root, without a leading slash; empty for the root.
    pub(super) path: &'a [u8],
    pub(super) kind: ChangeKind,
    /// None if it was deleted.
    pub(super) file: Option<File>,
    /// The image's directory of this path has to be hidden.
    pub(super) hides: bool,
}

type Visit<'a> = dyn FnMut(&Event<'_>) -> Result<(), TreeError> + 'a;

/// A directory whose names are being visited.
struct Frame {
    children: vec::IntoIter<Child>,
    is_merged: bool,
    /// Length of its path.
    length: usize,
    /// It is unchanged itself, and visited before the first change in it.
    unvisited: Option<File>,
}

impl MachineTree {
    pub(super) fn walk(&self, scope: Scope, visit: &mut Visit<'_>) -> Result<(), TreeError> {
        let top = self.top();
        if let Some(file) = self.root(scope)? {
            visit(&Event { path: b"", kind: ChangeKind::Changed, file: Some(file), hides: false })?;
        }
        match (scope, top.upper) {
            (Scope::Changes | Scope::Layer, None) => Ok(()),
            _ => self.walk_from(top, Vec::new(), scope, visit),
        }
    }

    /// The top directory, which is not listed, but a layer has it if it is another one.
    fn root(&self, scope: Scope) -> Result<Option<File>, TreeError> {
        let (now, before) = (self.root_file()?, self.metadata(Source::Lower, self.lower.root())?);
        let owned = |file: &File| (file.metadata.permissions, file.metadata.uid, file.metadata.gid);
        Ok(match scope {
            Scope::Changes => None,
            Scope::Layer => Some(now).filter(|now| owned(now) != owned(&before)),
            Scope::All => Some(now),
        })
    }

    pub(super) fn root_file(&self) -> Result<File, TreeError> {
        match &self.upper {
            Some(upper) => self.metadata(Source::Upper, upper.root),
            None => self.metadata(Source::Lower, self.lower.root()),
        }
    }

    /// The names in `directory`, above which the image may have `before`.
    pub(super) fn place(&self, directory: &File, before: Option<&File>, path: &[u8]) -> Result<Place, TreeError> {
        if directory.source == Source::Lower {
            return Ok(Place { upper: None, lower: Some(directory.number), is_merged: true });
        }
        let before = before.filter(|file| file.metadata.kind == FileKind::Directory);
        let is_merged = !self.is_opaque(directory, path)?;
        Ok(Place { upper: Some(directory.number), lower: before.map(|file| file.number), is_merged })
    }

    /// Visits what is below the directory `place`, whose path is `path`.
    pub(super) fn walk_from(
        &self,
        place: Place,
        mut path: Vec<u8>,
        scope: Scope,
        visit: &mut Visit<'_>,
    ) -> Result<(), TreeError> {
        let mut directories = BTreeSet::from_iter(place.upper);
        let mut frames = vec![self.frame(&place, path.len(), None)?];
        while let Some(frame) = frames.last_mut() {
            let (length, is_merged) = (frame.length, frame.is_merged);
            let Some(child) = frame.children.next() else {
                frames.pop();
                continue;
            };
            self.release(std::slice::from_ref(&child));
            path.truncate(length);
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&child.name);
            let Found { now, before } = self.find(&path, &child, is_merged)?;
            let is_directory = |file: &File| file.metadata.kind == FileKind::Directory;
            let directory = now.filter(is_directory);
            let below = directory.map(|directory| self.place(&directory, before.as_ref(), &path)).transpose()?;
            let is_opaque = below.is_some_and(|below| !below.is_merged);
            let hides = scope == Scope::Layer && is_opaque && before.as_ref().is_some_and(is_directory);
            let kind = self.kind(scope, now.as_ref(), before.as_ref(), hides)?;
            if let Some(kind) = kind {
                for frame in &mut frames {
                    if let Some(file) = frame.unvisited.take() {
                        let (path, kind) = (&path[..frame.length], ChangeKind::Changed);
                        visit(&Event { path, kind, file: Some(file), hides: false })?;
                    }
                }
                visit(&Event { path: &path, kind, file: now, hides })?;
            }
            let Some(mut place) = below.filter(|below| below.upper.is_some() || scope == Scope::All) else { continue };
            if hides {
                place.lower = None;
            }
            if frames.len() == limits::MAX_DEPTH {
                return Err(TreeError::file(&path, "nested too deeply"));
            }
            if let Some(number) = place.upper {
                self.charge(2 * size_of::<u64>())?;
                if !directories.insert(number) {
                    let error = FileSystemError::Damaged("ext4 file system", "a directory has two names");
                    return Err(failed(Source::Upper)(error));
                }
            }
            frames.push(self.frame(&place, path.len(), directory.filter(|_| kind.is_none()))?);
        }
        Ok(())
    }

    fn frame(&self, place: &Place, length: usize, unvisited: Option<File>) -> Result<Frame, TreeError> {
        let children = self.children(place)?.into_iter();
        Ok(Frame { children, is_merged: place.is_merged, length, unvisited })
    }

    /// None if the path is not visited.
    fn kind(
        &self,
        scope: Scope,
        now: Option<&File>,
        before: Option<&File>,
        hides: bool,
    ) -> Result<Option<ChangeKind>, TreeError> {
        Ok(match (now, before) {
            (None, None) => None,
            (None, Some(_)) if scope == Scope::All => None,
            (None, Some(_)) => Some(ChangeKind::Deleted),
            (Some(_), None) => Some(ChangeKind::Added),
            (Some(_), Some(_)) if scope == Scope::All || hides => Some(ChangeKind::Changed),
            (Some(now), Some(_)) if now.source == Source::Lower => None,
            (Some(now), Some(before)) => {
                // A layer has all names of a file, or none.
                let has_links = |file: &File| file.metadata.kind != FileKind::Directory && file.metadata.links > 1;
                let is_relinked = scope == Scope::Layer && (has_links(now) || has_links(before));
                let is_changed = is_relinked || self.differs(now, before)?;
                is_changed.then_some(ChangeKind::Changed)
            }
        })
    }
}
