// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The files of a machine, whose disks do not change meanwhile: its image's root disk, and the writable layer that overlayfs put above it (Linux
//! `Documentation/filesystems/overlayfs.rst`; neither redirects nor an index, nor files of metadata alone). Both are read here, and
//! nothing is mounted. Runs on the caller's thread.

mod archive;
mod content;
mod path;
mod walk;

#[cfg(test)]
mod machine_tree_tests;

use crate::budget::Budget;
use crate::erofs::Erofs;
use crate::ext4::Ext4;
use crate::file_system::{FileKind, FileSystem, FileSystemError, Metadata, Name, Xattr};
use crate::limits;
use crate::root_disk::{RootDisk, RootFormat};
use crate::tar::printable;
use content::Content;
use std::fs;
use std::io;
use std::sync::Arc;
use walk::{Event, Place, Scope};

pub use archive::FileSink;
pub use path::Location;
pub use walk::ChangeKind;

/// Where PID 1 puts the two directories of the overlay.
const UPPER: [&[u8]; 2] = [b"overlay", b"upper"];
const OPAQUE: &[u8] = b"trusted.overlay.opaque";
/// Attributes of overlayfs itself.
const OVERLAY_PREFIX: &[u8] = b"trusted.overlay.";
/// Overlayfs would look for the directory's files elsewhere in the root disk.
const REDIRECT: &[u8] = b"trusted.overlay.redirect";
/// Directories that PID 1 makes as places for mounts where the image has none.
const MOUNT_POINTS: [&[u8]; 4] = [b"dev", b"etc", b"proc", b"sys"];
/// Files that PID 1 writes at each start.
const WRITTEN: [&[u8]; 3] = [b"etc/hosts", b"etc/hostname", b"etc/resolv.conf"];
/// A symlink that PID 1 makes where the image has no such file.
const MTAB: (&[u8], &[u8]) = (b"etc/mtab", b"/proc/mounts");

#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    #[error("cannot read the writable layer")]
    Layer(#[source] FileSystemError),
    #[error("cannot read the root disk")]
    Root(#[source] FileSystemError),
    #[error("{path}: {what}")]
    File { path: String, what: &'static str },
    #[error("its root disk is a squashfs image, whose files cannot be read here")]
    Squashfs,
    #[error("cannot write")]
    Write(#[from] io::Error),
}

impl TreeError {
    /// Whether the cause is this host rather than what the machine wrote.
    #[must_use]
    pub fn is_host(&self) -> bool {
        matches!(self, Self::Write(_) | Self::Layer(FileSystemError::Read(_)) | Self::Root(FileSystemError::Read(_)))
    }

    /// Of an error of the output.
    #[must_use]
    pub fn write_kind(&self) -> Option<io::ErrorKind> {
        if let Self::Write(error) = self { Some(error.kind()) } else { None }
    }

    fn file(path: &[u8], what: &'static str) -> Self {
        Self::File { path: format!("/{}", printable(path)), what }
    }
}

/// The files of one machine.
pub struct MachineTree {
    lower: Box<dyn FileSystem>,
    upper: Option<Upper>,
    budget: Arc<Budget>,
    /// PID 1 wrote files that belong to the machine and not to the workload.
    hides_own_files: bool,
}

struct Upper {
    ext4: Ext4,
    root: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Upper,
    Lower,
}

/// A file as the workload sees it.
#[derive(Clone, Copy, Debug)]
struct File {
    source: Source,
    number: u64,
    metadata: Metadata,
}

/// What is known of a path.
struct Found {
    now: Option<File>,
    /// What the image has there.
    before: Option<File>,
}

/// A name in the directories of both layers.
struct Child {
    name: Box<[u8]>,
    upper: Option<u64>,
    lower: Option<u64>,
}

impl MachineTree {
    /// Reads the superblocks of a root disk and of a machine's layer, which must not be changed meanwhile. With `is_system` the files
    /// in `/etc` that PID 1 writes elsewhere are the system's own.
    ///
    /// # Errors
    /// One of them is not such a file system, or is damaged.
    pub fn open(root: RootDisk, format: RootFormat, layer: fs::File, is_system: bool) -> Result<Self, TreeError> {
        let budget = Arc::new(Budget::default());
        let lower: Box<dyn FileSystem> = match format {
            RootFormat::Erofs => Box::new(Erofs::open(root, budget.clone()).map_err(TreeError::Root)?),
            RootFormat::Squashfs => return Err(TreeError::Squashfs),
        };
        let ext4 = Ext4::open(layer, budget.clone()).map_err(TreeError::Layer)?;
        let upper = find_upper(&ext4, &budget).map_err(TreeError::Layer)?.map(|root| Upper { ext4, root });
        Ok(Self { lower, upper, budget, hides_own_files: !is_system })
    }

    /// The files of an image, from its EROFS root disk.
    ///
    /// # Errors
    /// It is not such a file system, or is damaged.
    pub(crate) fn of_image(root: RootDisk) -> Result<Self, TreeError> {
        let budget = Arc::new(Budget::default());
        let lower = Box::new(Erofs::open(root, budget.clone()).map_err(TreeError::Root)?);
        Ok(Self { lower, upper: None, budget, hides_own_files: false })
    }

    /// Calls `visit` with the path and the kind of each change, without a leading slash: parents first, names in their order. A
    /// directory is changed if something in it is.
    ///
    /// # Errors
    /// A file system is damaged, or `visit` fails.
    pub fn changes(&self, visit: &mut dyn FnMut(ChangeKind, &[u8]) -> io::Result<()>) -> Result<(), TreeError> {
        self.walk(Scope::Changes, &mut |event: &Event<'_>| Ok(visit(event.kind, event.path)?))
    }

    fn source(&self, source: Source) -> &dyn FileSystem {
        match (&self.upper, source) {
            (Some(upper), Source::Upper) => &upper.ext4,
            _ => &*self.lower,
        }
    }

    fn metadata(&self, source: Source, number: u64) -> Result<File, TreeError> {
        let metadata = self.source(source).metadata(number).map_err(failed(source))?;
        Ok(File { source, number, metadata })
    }

    /// Without those of overlayfs.
    fn xattrs(&self, file: &File) -> Result<Vec<Xattr>, TreeError> {
        let mut xattrs = self.source(file.source).xattrs(file.number).map_err(failed(file.source))?;
        xattrs.retain(|xattr| !xattr.name.starts_with(OVERLAY_PREFIX));
        Ok(xattrs)
    }

    fn link_target(&self, file: &File) -> Result<Vec<u8>, TreeError> {
        self.source(file.source).link_target(file.number).map_err(failed(file.source))
    }

    fn content(&self, file: &File) -> Result<Content<'_>, TreeError> {
        let file_system = self.source(file.source);
        let extents = file_system.extents(file.number).map_err(failed(file.source))?;
        Ok(Content::new(file_system, extents, file.metadata.size, &self.budget))
    }

    /// Whether a directory of the upper layer hides what the lower one has.
    fn is_opaque(&self, directory: &File, path: &[u8]) -> Result<bool, TreeError> {
        let xattrs = self.source(directory.source).xattrs(directory.number).map_err(failed(directory.source))?;
        if xattrs.iter().any(|xattr| xattr.name == REDIRECT) {
            return Err(TreeError::file(path, "a redirected directory is not supported"));
        }
        Ok(xattrs.iter().any(|xattr| xattr.name == OPAQUE && xattr.value == b"y"))
    }

    /// The names in both layers, in their order.
    fn children(&self, place: &Place) -> Result<Vec<Child>, TreeError> {
        let list = |source: Source, directory: Option<u64>| {
            let entries = directory.map(|number| self.source(source).entries(number));
            entries.unwrap_or_else(|| Ok(Vec::new())).map_err(failed(source))
        };
        let mut upper = list(Source::Upper, place.upper)?.into_iter().peekable();
        let mut lower = list(Source::Lower, place.lower)?.into_iter().peekable();
        let mut children = Vec::new();
        loop {
            let order = match (upper.peek(), lower.peek()) {
                (None, None) => return Ok(children),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some((upper, _)), Some((lower, _))) => upper.cmp(lower),
            };
            let upper: Option<Name> = upper.next_if(|_| order.is_le());
            let lower: Option<Name> = lower.next_if(|_| order.is_ge());
            let numbers = (upper.as_ref().map(|(_, number)| *number), lower.as_ref().map(|(_, number)| *number));
            let name = upper.or(lower).map(|(name, _)| name).unwrap_or_default();
            children.push(Child { name, upper: numbers.0, lower: numbers.1 });
        }
    }

    /// The file `child` in a directory in which the lower layer is visible if `is_merged`.
    fn find(&self, path: &[u8], child: &Child, is_merged: bool) -> Result<Found, TreeError> {
        let is_whiteout = |file: &File| file.metadata.kind == FileKind::CharDevice && file.metadata.device == (0, 0);
        let load = |source, number: Option<u64>| number.map(|number| self.metadata(source, number)).transpose();
        let before = load(Source::Lower, child.lower)?.filter(|file| !is_whiteout(file));
        let upper = load(Source::Upper, child.upper)?;
        Ok(match upper {
            Some(upper) if self.is_own(path, &upper, before.as_ref())? => {
                let before = before.filter(|_| is_merged);
                Found { now: before, before }
            }
            Some(upper) => Found { now: Some(upper).filter(|file| !is_whiteout(file)), before },
            None => Found { now: before.filter(|_| is_merged), before },
        })
    }

    /// Whether PID 1 made the file, for the machine.
    fn is_own(&self, path: &[u8], upper: &File, before: Option<&File>) -> Result<bool, TreeError> {
        let kind = upper.metadata.kind;
        if !self.hides_own_files {
            Ok(false)
        } else if WRITTEN.contains(&path) {
            Ok(kind == FileKind::Regular)
        } else if path == MTAB.0 {
            Ok(before.is_none() && kind == FileKind::Symlink && self.link_target(upper)? == MTAB.1)
        } else if MOUNT_POINTS.contains(&path) && before.is_none() && kind == FileKind::Directory {
            let place = Place { upper: Some(upper.number), lower: None, is_merged: true };
            let children = self.children(&place)?;
            self.release(&children);
            for child in &children {
                let path = [path, b"/", &child.name].concat();
                if self.find(&path, child, true)?.now.is_some() {
                    return Ok(false);
                }
            }
            Ok(true)
        } else {
            Ok(false)
        }
    }

    fn release(&self, children: &[Child]) {
        for child in children {
            let names = u64::from(child.upper.is_some()) + u64::from(child.lower.is_some());
            self.budget.release(names * crate::file_system::entry_cost(&child.name));
        }
    }

    fn charge(&self, bytes: usize) -> Result<(), TreeError> {
        self.budget.charge_allocation(bytes).map_err(|_| TreeError::Layer(FileSystemError::OverBudget))
    }

    /// Whether a file of the upper layer differs from the one below it by more than the time of a directory.
    fn differs(&self, now: &File, before: &File) -> Result<bool, TreeError> {
        let (new, old) = (&now.metadata, &before.metadata);
        let identity = |metadata: &Metadata| (metadata.kind, metadata.permissions, metadata.uid, metadata.gid);
        if identity(new) != identity(old) || new.device != old.device {
            return Ok(true);
        }
        if new.kind != FileKind::Directory && (new.size != old.size || !is_same_time(new.modified, old.modified)) {
            return Ok(true);
        }
        if self.xattrs(now)? != self.xattrs(before)? {
            return Ok(true);
        }
        match new.kind {
            FileKind::Symlink => Ok(self.link_target(now)? != self.link_target(before)?),
            FileKind::Regular => Ok(!self.content(now)?.equals(&self.content(before)?)?),
            _ => Ok(false),
        }
    }

    /// Where the walk of all files begins.
    fn top(&self) -> Place {
        Place { upper: self.upper.as_ref().map(|upper| upper.root), lower: Some(self.lower.root()), is_merged: true }
    }
}

/// The upper layer's directory, which a machine that has never run does not have.
fn find_upper(ext4: &Ext4, budget: &Budget) -> Result<Option<u64>, FileSystemError> {
    let mut directory = ext4.root();
    for name in UPPER {
        let entries = ext4.entries(directory)?;
        budget.release(crate::file_system::entries_cost(&entries));
        match entries.binary_search_by(|(entry, _)| (**entry).cmp(name)) {
            Ok(index) => directory = entries[index].1,
            Err(_) => return Ok(None),
        }
    }
    Ok(Some(directory))
}

/// Some file systems have whole seconds only.
fn is_same_time(a: (i64, u32), b: (i64, u32)) -> bool {
    a.0 == b.0 && (a.1 == b.1 || a.1 == 0 || b.1 == 0)
}

fn failed(source: Source) -> impl Fn(FileSystemError) -> TreeError {
    move |error| match source {
        Source::Upper => TreeError::Layer(error),
        Source::Lower => TreeError::Root(error),
    }
}

const _: () = assert!(limits::MAX_DEPTH * (limits::MAX_NAME_LENGTH + 1) < 1 << 20, "a path is small");
