// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is remembered of kernels between starts: the ELF file out of a bzImage, and what a search of an image found. Runs
//! wherever a kernel is opened.
//!
//! An entry is named after what changes whenever a kernel's file does, and is complete or absent: it is written without a
//! name, brought to the disk, and named last, so that a killed process leaves nothing behind. A failure of the cache
//! with the cache costs time only.

use crate::features::Features;
use crate::file_identity;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

/// Below the directory that is given to [`KernelCache::new`]; the number changes with the meaning of an entry.
const DIRECTORY: &str = "kernels/v2";
/// Unpacked kernels that are kept, 60 MB each; of more, those that were made first go.
const UNPACKED: usize = 4;
const SUFFIX_UNPACKED: &str = "elf";
const SUFFIX_FEATURES: &str = "features";
/// Longest file of features.
const LONGEST_LINE: u64 = 4096;

/// A directory, or none.
#[derive(Clone, Debug, Default)]
pub struct KernelCache {
    directory: Option<PathBuf>,
}

impl KernelCache {
    /// One below `cache`, which need not exist; without it nothing is remembered.
    #[must_use]
    pub fn new(cache: Option<&Path>) -> Self {
        Self { directory: cache.map(|cache| cache.join(DIRECTORY)) }
    }

    /// The ELF file that was unpacked from the file of `metadata`.
    pub(crate) fn unpacked(&self, metadata: &Metadata) -> Option<File> {
        File::open(self.entry(metadata, SUFFIX_UNPACKED)?).ok()
    }

    /// A file without a name to unpack to: where [`keep_unpacked`](Self::keep_unpacked) can name it, else in memory.
    pub(crate) fn unnamed(&self) -> io::Result<File> {
        let in_directory = self.directory.as_deref().and_then(|directory| unnamed_in(directory).ok());
        match in_directory {
            Some(file) => Ok(file),
            None => Ok(rustix::fs::memfd_create("kernel", rustix::fs::MemfdFlags::CLOEXEC)?.into()),
        }
    }

    /// Gives a file of [`unnamed`](Self::unnamed) its name.
    pub(crate) fn keep_unpacked(&self, metadata: &Metadata, file: &File) {
        let Some((directory, entry)) = self.directory.as_deref().zip(self.entry(metadata, SUFFIX_UNPACKED)) else {
            return;
        };
        if name(file, &entry).is_ok() {
            prune(directory, &entry);
        }
    }

    /// What was found in the file of `metadata`.
    pub(crate) fn features(&self, metadata: &Metadata) -> Option<Features> {
        let mut line = String::new();
        let file = File::open(self.entry(metadata, SUFFIX_FEATURES)?).ok()?;
        file.take(LONGEST_LINE).read_to_string(&mut line).ok()?;
        Features::from_line(&line)
    }

    pub(crate) fn keep_features(&self, metadata: &Metadata, features: &Features) {
        let Some((directory, entry)) = self.directory.as_deref().zip(self.entry(metadata, SUFFIX_FEATURES)) else {
            return;
        };
        let written = unnamed_in(directory).and_then(|mut file| {
            file.write_all(features.to_line().as_bytes())?;
            name(&file, &entry)
        });
        // An entry that cannot be read is in the way of a new one.
        if written.is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists) {
            let _ = fs::remove_file(entry);
        }
    }

    fn entry(&self, metadata: &Metadata, suffix: &str) -> Option<PathBuf> {
        self.directory.as_ref().map(|directory| directory.join(format!("{}.{suffix}", file_identity(metadata))))
    }
}

fn unnamed_in(directory: &Path) -> io::Result<File> {
    fs::create_dir_all(directory)?;
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(rustix::fs::open(directory, flags, Mode::from_raw_mode(0o644))?.into())
}

fn name(file: &File, entry: &Path) -> io::Result<()> {
    file.sync_data()?;
    let own = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(rustix::fs::linkat(CWD, own, CWD, entry, AtFlags::SYMLINK_FOLLOW)?)
}

/// Makes room: `newest` stays.
fn prune(directory: &Path, newest: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let unpacked = entries.flatten().map(|entry| entry.path());
    let unpacked = unpacked.filter(|path| path != newest && path.extension().is_some_and(|it| it == SUFFIX_UNPACKED));
    let mut unpacked: Vec<_> =
        unpacked.filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path))).collect();
    unpacked.sort();
    for (_, path) in unpacked.iter().rev().skip(UNPACKED - 1) {
        let _ = fs::remove_file(path);
    }
}
