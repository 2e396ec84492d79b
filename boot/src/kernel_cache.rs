// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Cache of kernel data between starts: the ELF file of a bzImage, and the features of an image.
//! Runs on the thread that opens a kernel.
//!
//! The name of an entry changes whenever the kernel's file does. An entry is complete or absent: it
//! is written to an O_TMPFILE file, synced, and linked last, so that a killed process leaves
//! nothing behind. A failure of the cache only costs time.

use crate::features::Features;
use crate::file_identity;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

/// Below the directory of [`KernelCache::new`]. The number changes with the meaning of an entry.
const DIRECTORY: &str = "kernels/v2";
/// Unpacked kernels, 60 MB each. The oldest ones are removed.
const MAX_UNPACKED_KERNELS: usize = 4;
const SUFFIX_UNPACKED: &str = "elf";
const SUFFIX_FEATURES: &str = "features";
const MAX_FEATURES_SIZE: u64 = 4096;

#[derive(Clone, Debug, Default)]
pub struct KernelCache {
    directory: Option<PathBuf>,
}

impl KernelCache {
    /// Uses a directory below `cache`, which need not exist. Without `cache` nothing is cached.
    #[must_use]
    pub fn new(cache: Option<&Path>) -> Self {
        Self { directory: cache.map(|cache| cache.join(DIRECTORY)) }
    }

    /// Returns the ELF file that was unpacked from the file with `metadata`.
    pub(crate) fn find_unpacked(&self, metadata: &Metadata) -> Option<File> {
        File::open(self.entry(metadata, SUFFIX_UNPACKED)?).ok()
    }

    /// Creates an unnamed file to unpack to: where [`store_unpacked`](Self::store_unpacked) can
    /// link it, else in memory.
    pub(crate) fn create_tmpfile(&self) -> io::Result<File> {
        let in_directory = self.directory.as_deref().and_then(|directory| tmpfile_in(directory).ok());
        match in_directory {
            Some(file) => Ok(file),
            None => Ok(rustix::fs::memfd_create("kernel", rustix::fs::MemfdFlags::CLOEXEC)?.into()),
        }
    }

    /// Links a file of [`create_tmpfile`](Self::create_tmpfile) as an entry.
    pub(crate) fn store_unpacked(&self, metadata: &Metadata, file: &File) {
        let Some((directory, entry)) = self.directory.as_deref().zip(self.entry(metadata, SUFFIX_UNPACKED)) else {
            return;
        };
        if link(file, &entry).is_ok() {
            prune(directory, &entry);
        }
    }

    /// Returns the features of the file with `metadata`.
    pub(crate) fn find_features(&self, metadata: &Metadata) -> Option<Features> {
        let mut line = String::new();
        let file = File::open(self.entry(metadata, SUFFIX_FEATURES)?).ok()?;
        file.take(MAX_FEATURES_SIZE).read_to_string(&mut line).ok()?;
        Features::from_line(&line)
    }

    pub(crate) fn store_features(&self, metadata: &Metadata, features: &Features) {
        let Some((directory, entry)) = self.directory.as_deref().zip(self.entry(metadata, SUFFIX_FEATURES)) else {
            return;
        };
        let written = tmpfile_in(directory).and_then(|mut file| {
            file.write_all(features.to_line().as_bytes())?;
            link(&file, &entry)
        });
        // The existing entry is unreadable: remove it for the next start.
        if written.is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists) {
            let _ = fs::remove_file(entry);
        }
    }

    fn entry(&self, metadata: &Metadata, suffix: &str) -> Option<PathBuf> {
        self.directory.as_ref().map(|directory| directory.join(format!("{}.{suffix}", file_identity(metadata))))
    }
}

fn tmpfile_in(directory: &Path) -> io::Result<File> {
    fs::create_dir_all(directory)?;
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(rustix::fs::open(directory, flags, Mode::from_raw_mode(0o644))?.into())
}

fn link(file: &File, entry: &Path) -> io::Result<()> {
    file.sync_data()?;
    let own = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(rustix::fs::linkat(CWD, own, CWD, entry, AtFlags::SYMLINK_FOLLOW)?)
}

/// Removes the oldest unpacked kernels but never `newest`.
fn prune(directory: &Path, newest: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let unpacked = entries.flatten().map(|entry| entry.path());
    let unpacked = unpacked.filter(|path| path != newest && path.extension().is_some_and(|it| it == SUFFIX_UNPACKED));
    let mut unpacked: Vec<_> =
        unpacked.filter_map(|path| Some((fs::metadata(&path).ok()?.modified().ok()?, path))).collect();
    unpacked.sort();
    for (_, path) in unpacked.iter().rev().skip(MAX_UNPACKED_KERNELS - 1) {
        let _ = fs::remove_file(path);
    }
}
