// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The scratch disk, which takes the workload's writes: sparse, and without a name, so that it ends with the process. Runs on the
//! thread `prepare`.
//!
//! `mke2fs` formats one template for each size in the cache; a disk is a copy of the template's few hundred KiB, which is ten times as
//! fast. A template appears atomically. Without a cache every disk is formatted by itself.

use super::directories::Directories;
use super::ext4::{FormatError, format};
use super::sparse_file;
use super::tmpfile::tmpfile;
use devices::rate_limit::RateLimits;
use devices::virtio::block::BlockConfig;
use rustix::fs::{AtFlags, CWD, SeekFrom, linkat, seek};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// Directory of the templates. Changes with [`OPTIONS`] and the other options of `mke2fs`.
const TEMPLATE_DIRECTORY: &str = "scratch/v1";
/// A template has less data. A file system that does not support holes reports more.
const MAX_TEMPLATE_DATA: u64 = 64 << 20;
/// No journal and no checksums: the disk never outlives the machine, and on hosts that emulate the guest's kernel checksums are
/// expensive. `uninit_bg` marks most of the disk as never used.
const OPTIONS: [&str; 4] = [
    "-O",
    "none,dir_index,dir_nlink,ext_attr,extent,extra_isize,filetype,flex_bg,huge_file,large_file,sparse_super2,uninit_bg",
    "-E",
    "nodiscard,lazy_itable_init=1,num_backup_sb=0,root_owner=0:0",
];

#[derive(Debug, thiserror::Error)]
pub(crate) enum ScratchError {
    #[error("cannot create a scratch disk in {directory}")]
    Create { directory: PathBuf, source: Errno },
    #[error("cannot write a scratch disk of {size} bytes in {directory}")]
    Write { directory: PathBuf, size: u64, source: io::Error },
    #[error("mke2fs is not installed: install e2fsprogs, or use --scratch tmpfs")]
    NotInstalled,
    #[error("cannot make a scratch disk")]
    Format(#[source] FormatError),
}

impl From<FormatError> for ScratchError {
    fn from(error: FormatError) -> Self {
        match error {
            FormatError::NotInstalled => Self::NotInstalled,
            error => Self::Format(error),
        }
    }
}

/// Creates a formatted disk of `size` bytes.
///
/// # Errors
/// The temporary directory has no space, or `mke2fs` is missing or fails.
pub(crate) fn create(size: u64, directories: &Directories, serial: &str) -> Result<BlockConfig, ScratchError> {
    let disk = create_empty(size, directories, serial)?;
    fill(&disk.file, directories)?;
    Ok(disk)
}

/// Creates a disk of `size` bytes without a file system.
///
/// # Errors
/// The temporary directory has no space.
pub(crate) fn create_empty(size: u64, directories: &Directories, serial: &str) -> Result<BlockConfig, ScratchError> {
    let directory = directories.large_temporary();
    let file = tmpfile(&directory).map_err(|source| ScratchError::Create { directory: directory.clone(), source })?;
    file.set_len(size).map_err(|source| ScratchError::Write { directory: directory.clone(), size, source })?;
    Ok(config(file, &directory, serial))
}

/// Formats the disk `file`, whatever it holds.
///
/// # Errors
/// The temporary directory has no space, or `mke2fs` is missing or fails.
pub(crate) fn fill(file: &File, directories: &Directories) -> Result<(), ScratchError> {
    let emptied = file.metadata().and_then(|metadata| {
        file.set_len(0)?;
        file.set_len(metadata.len())?;
        Ok(metadata.len())
    });
    let size = emptied.map_err(write_error(directories, 0))?;
    let template = match directories.cache() {
        Ok(cache) => open_template(size, &cache)?,
        Err(_) => None,
    };
    let data = template.and_then(|template| Some((extents(&template, size).ok()?, template)));
    match data {
        Some((extents, template)) => copy(&template, &extents, file).map_err(write_error(directories, size)),
        None => Ok(format(file, size, &OPTIONS)?),
    }
}

fn write_error(directories: &Directories, size: u64) -> impl Fn(io::Error) -> ScratchError {
    let directory = directories.large_temporary();
    move |source| ScratchError::Write { directory: directory.clone(), size, source }
}

fn config(file: File, directory: &Path, serial: &str) -> BlockConfig {
    BlockConfig {
        file,
        path: directory.join("scratch disk"),
        more: Vec::new(),
        read_only: false,
        scratch: true,
        serial: serial.to_owned(),
        limits: RateLimits::default(),
    }
}

/// Creates a disk with the contents of `source`.
///
/// # Errors
/// The temporary directory has no space, or `source` cannot be read.
pub(crate) fn copy_of(source: &File, directories: &Directories, serial: &str) -> Result<BlockConfig, ScratchError> {
    let size = source.metadata().map_or(0, |metadata| metadata.len());
    let disk = create_empty(size, directories, serial)?;
    copy_from(source, &disk.file, directories)?;
    Ok(disk)
}

/// Gives the empty disk `file` the contents of `source`, which has its size.
///
/// # Errors
/// The temporary directory has no space, or `source` cannot be read.
pub(crate) fn copy_from(source: &File, file: &File, directories: &Directories) -> Result<(), ScratchError> {
    let size = source.metadata().map_or(0, |metadata| metadata.len());
    sparse_file::copy(source, file, size).map_err(write_error(directories, size))
}

/// The template for disks of `size` bytes, which is created if it is missing. None if the cache cannot hold one.
fn open_template(size: u64, cache: &Path) -> Result<Option<File>, ScratchError> {
    let directory = cache.join(TEMPLATE_DIRECTORY);
    let path = directory.join(format!("ext4-{size}.img"));
    match File::open(&path) {
        Ok(template) if template.metadata().is_ok_and(|metadata| metadata.len() == size) => Ok(Some(template)),
        _ => create_template(size, &directory, &path),
    }
}

fn create_template(size: u64, directory: &Path, path: &Path) -> Result<Option<File>, ScratchError> {
    if fs::create_dir_all(directory).is_err() {
        return Ok(None);
    }
    let Ok(file) = tmpfile(directory) else { return Ok(None) };
    if file.set_len(size).is_err() {
        return Ok(None);
    }
    match format(&file, size, &OPTIONS) {
        // The cache may be full where the temporary directory is not.
        Err(FormatError::Refused { .. }) => return Ok(None),
        result => result?,
    }
    let proc_path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let link = || linkat(CWD, &proc_path, CWD, path, AtFlags::SYMLINK_FOLLOW);
    if link() == Err(Errno::EXIST) && fs::metadata(path).is_ok_and(|metadata| metadata.len() != size) {
        // A damaged template. If another process replaces it at the same time, one of the two links fails.
        let _ = fs::remove_file(path).map(|()| link());
    }
    Ok(Some(file))
}

/// The ranges of `template` that hold data.
fn extents(template: &File, size: u64) -> Result<Vec<(u64, u64)>, Errno> {
    let (mut extents, mut position, mut data) = (Vec::new(), 0, 0);
    while position < size {
        let start = match seek(template, SeekFrom::Data(position)) {
            Ok(start) => start,
            // A hole up to the end.
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error),
        };
        let end = seek(template, SeekFrom::Hole(start))?;
        data += end - start;
        if data > MAX_TEMPLATE_DATA {
            return Err(Errno::OPNOTSUPP);
        }
        extents.push((start, end));
        position = end;
    }
    Ok(extents)
}

fn copy(template: &File, extents: &[(u64, u64)], disk: &File) -> io::Result<()> {
    let mut bytes = Vec::new();
    for &(start, end) in extents {
        bytes.resize((end - start) as usize, 0);
        template.read_exact_at(&mut bytes, start)?;
        disk.write_all_at(&bytes, start)?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "scratch_tests.rs"]
mod tests;
