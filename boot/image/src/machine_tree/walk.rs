// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Walks over a machine's files: directory by directory, so that memory is what the directories above a file have as entries.

use super::{Child, File, Found, MachineTree, Source, TreeError, failed};
use crate::file_system::{FileKind, FileSystemError};
use crate::limits;
use std::collections::BTreeSet;
use std::{io, vec};

/// How a path of the machine differs from the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    Added,
    Changed,
    Deleted,
}

/// A directory in both layers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) upper: Option<u64>,
    pub(super) lower: Option<u64>,
    /// The names of the lower one are visible.
    pub(super) is_merged: bool,
}

/// Called with each change, and with its path below the root without a leading slash.
pub(super) type Visit<'a> = dyn FnMut(ChangeKind, &[u8]) -> io::Result<()> + 'a;

/// A directory whose names are being visited.
struct Frame {
    children: vec::IntoIter<Child>,
    is_merged: bool,
    /// Length of its path.
    length: usize,
    /// It is unchanged itself, and visited before the first change in it.
    is_unvisited: bool,
}

impl MachineTree {
    /// Visits what differs from the image. Only directories of the upper layer can have changes.
    pub(super) fn walk(&self, visit: &mut Visit<'_>) -> Result<(), TreeError> {
        let place = self.top();
        if place.upper.is_none() {
            return Ok(());
        }
        let mut path = Vec::new();
        let mut directories = BTreeSet::from_iter(place.upper);
        let mut frames = vec![self.frame(&place, 0, false)?];
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
            let is_opaque = directory.map_or(Ok(false), |directory| self.is_opaque(&directory, &path))?;
            let kind = self.kind(now.as_ref(), before.as_ref())?;
            if let Some(kind) = kind {
                for frame in frames.iter_mut().filter(|frame| frame.is_unvisited) {
                    frame.is_unvisited = false;
                    visit(ChangeKind::Changed, &path[..frame.length])?;
                }
                visit(kind, &path)?;
            }
            let Some(directory) = directory.filter(|directory| directory.source == Source::Upper) else { continue };
            let lower = before.filter(is_directory).map(|file| file.number);
            let place = Place { upper: Some(directory.number), lower, is_merged: !is_opaque };
            if frames.len() == limits::MAX_DEPTH {
                return Err(TreeError::file(&path, "nested too deeply"));
            }
            self.charge(2 * size_of::<u64>())?;
            if !directories.insert(directory.number) {
                let error = FileSystemError::Damaged("ext4 file system", "a directory has two names");
                return Err(failed(Source::Upper)(error));
            }
            frames.push(self.frame(&place, path.len(), kind.is_none())?);
        }
        Ok(())
    }

    fn frame(&self, place: &Place, length: usize, is_unvisited: bool) -> Result<Frame, TreeError> {
        let children = self.children(place)?.into_iter();
        Ok(Frame { children, is_merged: place.is_merged, length, is_unvisited })
    }

    /// None if there is no change.
    fn kind(&self, now: Option<&File>, before: Option<&File>) -> Result<Option<ChangeKind>, TreeError> {
        Ok(match (now, before) {
            (None, None) => None,
            (None, Some(_)) => Some(ChangeKind::Deleted),
            (Some(_), None) => Some(ChangeKind::Added),
            (Some(now), Some(_)) if now.source == Source::Lower => None,
            (Some(now), Some(before)) => self.differs(now, before)?.then_some(ChangeKind::Changed),
        })
    }
}
