// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The block device before activation: its checks of the host's file, its identity and
//! configuration space. Opened on `main`, then called by vCPU threads.

use super::super::{ActivateError, Activation, DeviceIdentity, DeviceKind, VirtioDevice, Worker, read_config_bytes};
use super::config::{ConfigSpace, QUEUE_SIZE};
use super::disk::{Disk, DiskCounters, Segment};
use super::resize::BlockHandle;
use super::worker::BlockWorker;
use super::{ID_SIZE, SECTOR_SIZE, lock};
use crate::rate_limit::{Limiter, RateControl, RateLimits};
use crate::slot::Slot;
use rustix::fs::{OFlags, ioctl_blksszget};
use std::fs::File;
use std::io::{ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX,
    VIRTIO_BLK_F_SIZE_MAX, VIRTIO_BLK_F_WRITE_ZEROES,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;
use zerocopy::IntoBytes;

/// The block device as a type.
pub const KIND: DeviceKind = DeviceKind {
    device_id: VIRTIO_ID_BLOCK,
    kernel_option: "CONFIG_VIRTIO_BLK",
    kernel_module: "virtio_blk",
    optional: false,
    savable: true,
    counters: Some("disks"),
};

/// A disk of the machine.
#[derive(Debug)]
pub struct BlockConfig {
    /// A regular file or a block device, open for reading, and for writing unless `read_only`.
    pub file: File,
    /// Its path, for messages only: the file may have been unlinked.
    pub path: PathBuf,
    /// Files whose bytes come after those of `file`, if the disk is `read_only`: the guest sees one disk. They may be empty.
    pub more: Vec<DiskFile>,
    /// The guest cannot write it, and other processes may read it at the same time.
    pub read_only: bool,
    /// Its contents need not outlive the machine, so that flushes have nothing to do.
    pub scratch: bool,
    /// Identifies the disk in the guest: at most 20 bytes.
    pub serial: String,
    /// What may pass; can be changed later.
    pub limits: RateLimits,
}

/// A file of a disk that has several.
#[derive(Debug)]
pub struct DiskFile {
    /// Open for reading.
    pub file: File,
    /// Its path, for messages only.
    pub path: PathBuf,
}

impl BlockConfig {
    /// All files in the order of the disk, and their paths.
    pub fn files(&self) -> impl Iterator<Item = (&File, &Path)> {
        let more = self.more.iter().map(|more| (&more.file, &*more.path));
        std::iter::once((&self.file, &*self.path)).chain(more)
    }
}

/// A file cannot serve as a disk.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// Its type or size cannot be determined.
    #[error("cannot examine disk {path}")]
    Examine {
        /// The disk.
        path: PathBuf,
        /// The error of the system call.
        source: std::io::Error,
    },
    /// A directory, pipe, socket or the like.
    #[error("disk {path} is neither a regular file nor a block device")]
    Type {
        /// The disk.
        path: PathBuf,
    },
    /// Empty, or not whole sectors.
    #[error("disk {path} has {size} bytes, which is not a positive multiple of {SECTOR_SIZE}")]
    Size {
        /// The disk.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
    /// It has several files, and their sizes have no sum of 64 bits.
    #[error("disk {path} and the files after it have 16 EiB or more")]
    TooLarge {
        /// The first file.
        path: PathBuf,
    },
    /// It has several files, and the guest may write it.
    #[error("disk {path} has several files and is not read-only")]
    SeveralFiles {
        /// The first file.
        path: PathBuf,
    },
    /// The descriptor does not allow what the machine needs.
    #[error("disk {path} is not open for {needed}")]
    Access {
        /// The disk.
        path: PathBuf,
        /// `reading` or `writing`.
        needed: &'static str,
    },
    /// Another process holds a lock that excludes this one.
    #[error("disk {path}: in use by another process")]
    Locked {
        /// The disk.
        path: PathBuf,
    },
    /// Its file system supports no locks, or no lock is left.
    #[error("cannot lock disk {path}")]
    Lock {
        /// The disk.
        path: PathBuf,
        /// The error of the system call.
        source: std::io::Error,
    },
    /// The host has no descriptor left.
    #[error("cannot limit the rate of disk {path}")]
    Limit {
        /// The disk.
        path: PathBuf,
        /// As the host reports it.
        source: std::io::Error,
    },
    /// The serial number is too long.
    #[error("serial {0:?} of a disk has more than {ID_SIZE} bytes")]
    Serial(String),
}

/// The block device.
#[derive(Debug)]
pub struct Block {
    identity: DeviceIdentity,
    pub(super) disk: Arc<Disk>,
    limiter: Slot<Limiter>,
    rates: RateControl,
}

impl Block {
    /// Checks and locks the files. The locks are held as long as the device or its worker lives.
    ///
    /// # Errors
    /// One of them cannot serve as a disk, or another process uses it.
    pub fn open(config: BlockConfig) -> Result<Self, BlockError> {
        let BlockConfig { file, path, more, read_only, scratch, serial, limits } = config;
        if serial.len() > ID_SIZE {
            return Err(BlockError::Serial(serial));
        }
        if !more.is_empty() && !read_only {
            return Err(BlockError::SeveralFiles { path });
        }
        let (mut size, mut alignment) = (0u64, SECTOR_SIZE);
        let mut open = |DiskFile { mut file, path }| {
            let (bytes, unit) = check(&mut file, &path, read_only)?;
            let start = size;
            size = size.checked_add(bytes).ok_or_else(|| BlockError::TooLarge { path: path.clone() })?;
            alignment = alignment.max(unit);
            Ok(Segment { start, file, path })
        };
        let first = open(DiskFile { file, path: path.clone() })?;
        let more = more.into_iter().map(open).collect::<Result<_, _>>()?;
        if size == 0 {
            return Err(BlockError::Size { path, size });
        }
        let limiter = Limiter::new(limits).map_err(|source| BlockError::Limit { path: path.clone(), source })?;
        let rates = limiter.control();
        let mut features = 1 << VIRTIO_BLK_F_SIZE_MAX | 1 << VIRTIO_BLK_F_SEG_MAX | 1 << VIRTIO_BLK_F_BLK_SIZE;
        features |= if read_only {
            1 << VIRTIO_BLK_F_RO
        } else {
            1 << VIRTIO_BLK_F_FLUSH | 1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES
        };
        let name = if serial.is_empty() { path.display().to_string() } else { serial.clone() };
        let counters = Arc::<DiskCounters>::default();
        let identity = DeviceIdentity {
            kind: &KIND,
            name: format!("disk {name}"),
            features,
            queue_sizes: vec![QUEUE_SIZE],
            counters: Some(Arc::clone(&counters) as _),
        };
        let disk = Disk {
            first,
            more,
            size: size.into(),
            alignment,
            read_only,
            scratch,
            serial,
            counters,
            dirty: AtomicBool::new(false),
            flush_failed: AtomicBool::new(false),
        };
        Ok(Self { identity, disk: Arc::new(disk), limiter: Slot::new(limiter), rates })
    }

    /// Counters that stay up to date.
    #[must_use]
    pub fn counters(&self) -> Arc<DiskCounters> {
        Arc::clone(&self.disk.counters)
    }

    /// Sets what may pass.
    #[must_use]
    pub fn rates(&self) -> RateControl {
        self.rates.clone()
    }

    /// Size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.disk.size()
    }

    /// Changes the size while the device is in use.
    #[must_use]
    pub fn handle(&self) -> BlockHandle {
        BlockHandle::new(Arc::clone(&self.disk))
    }
}

/// Checks and locks a file. Returns its size and the unit in which the host allocates.
fn check(file: &mut File, path: &Path, read_only: bool) -> Result<(u64, u64), BlockError> {
    check_access(file, path, read_only)?;
    let checked = size_and_alignment(file, path)?;
    match lock::lock(file, read_only) {
        Ok(()) => Ok(checked),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(BlockError::Locked { path: path.to_owned() }),
        Err(source) => Err(BlockError::Lock { path: path.to_owned(), source }),
    }
}

fn check_access(file: &File, path: &Path, read_only: bool) -> Result<(), BlockError> {
    let examine = |source: rustix::io::Errno| BlockError::Examine { path: path.to_owned(), source: source.into() };
    let flags = rustix::fs::fcntl_getfl(file).map_err(examine)?;
    let access = |needed| BlockError::Access { path: path.to_owned(), needed };
    match flags & OFlags::ACCMODE {
        _ if flags.contains(OFlags::PATH) => Err(access("reading")),
        OFlags::RDWR => Ok(()),
        OFlags::WRONLY => Err(access("reading")),
        _ if read_only => Ok(()),
        _ => Err(access("writing")),
    }
}

/// Size, and the unit in which the host allocates.
fn size_and_alignment(file: &mut File, path: &Path) -> Result<(u64, u64), BlockError> {
    let examine = |source| BlockError::Examine { path: path.to_owned(), source };
    let metadata = file.metadata().map_err(examine)?;
    let (size, alignment) = match metadata.file_type() {
        kind if kind.is_file() => (metadata.len(), SECTOR_SIZE),
        kind if kind.is_block_device() => {
            let logical_block = ioctl_blksszget(&*file).map_err(|error| examine(error.into()))?;
            (file.seek(SeekFrom::End(0)).map_err(examine)?, u64::from(logical_block).max(SECTOR_SIZE))
        }
        _ => return Err(BlockError::Type { path: path.to_owned() }),
    };
    if !size.is_multiple_of(SECTOR_SIZE) {
        return Err(BlockError::Size { path: path.to_owned(), size });
    }
    Ok((size, alignment))
}

impl VirtioDevice for Block {
    fn identity(&self) -> &DeviceIdentity {
        &self.identity
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(ConfigSpace::new(self.disk.size(), self.disk.alignment).as_bytes(), offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<Vec<Box<dyn Worker>>, ActivateError> {
        // The worker before was dropped, and has put it back.
        let limiter = self.limiter.take().ok_or_else(|| ActivateError {
            step: "cannot limit the rate of a disk",
            source: ErrorKind::ResourceBusy.into(),
        })?;
        Ok(vec![Box::new(BlockWorker::new(activation, Arc::clone(&self.disk), limiter))])
    }
}
