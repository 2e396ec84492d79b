// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The file system device before activation: identity and configuration space. Opened on `main`,
//! then called by vCPU threads.

use super::super::{ActivateError, Activation, DeviceIdentity, DeviceKind, VirtioDevice, Worker, read_config_bytes};
use super::host_file;
use super::server::{Export, Server};
use super::worker::FsWorker;
use rustix::io::Errno;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use virtio_bindings::virtio_ids::VIRTIO_ID_FS;

/// The file system device as a type.
pub const KIND: DeviceKind = DeviceKind {
    device_id: VIRTIO_ID_FS,
    kernel_option: "CONFIG_VIRTIO_FS",
    kernel_module: "virtiofs",
    optional: false,
    savable: false,
    counters: Some("shares"),
};

/// Bytes of the tag in the configuration space.
pub const MAX_TAG_SIZE: usize = 36;
/// High-priority requests, requests. A request of 1 MiB has 256 pages, besides its headers.
const QUEUE_SIZES: [u16; 2] = [64, 512];

/// What a file system device is made of.
#[derive(Debug)]
pub struct FsConfig {
    /// The name under which the guest mounts it: 1 to 36 bytes.
    pub tag: String,
    /// The directory; `O_PATH` is enough.
    pub directory: OwnedFd,
    /// Only this file of the directory is visible.
    pub only: Option<CString>,
    /// Every change is refused with `EROFS`.
    pub read_only: bool,
    /// Descriptors of this process that the guest can occupy: at least 16.
    pub max_descriptors: usize,
    /// Directories that the guest cannot enter where they lie below `directory`.
    pub closed: Arc<[OwnedFd]>,
}

/// A directory cannot be shared.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// Its type cannot be determined.
    #[error("cannot examine the directory")]
    Examine(#[source] std::io::Error),
    /// `proc`, `sysfs` and their like.
    #[error("file systems of the kernel cannot be shared")]
    KernelFileSystem,
    /// The tag does not fit.
    #[error("tag {0:?} of a share is empty or has more than {MAX_TAG_SIZE} bytes")]
    Tag(String),
}

device_counters! {
    /// What a guest did with a share. Monotonic, relaxed: for statistics.
    FsCounters {
        /// Requests, forgotten inodes excluded.
        requests,
        /// Bytes of files that the guest received.
        read_bytes,
        /// Bytes of files that the guest sent.
        write_bytes,
        /// Requests that are no valid FUSE requests.
        invalid,
    }
}

/// A directory of the host (virtio 1.3, 5.11), before activation.
#[derive(Debug)]
pub struct Fs {
    identity: DeviceIdentity,
    config: [u8; MAX_TAG_SIZE + 4],
    export: Arc<Export>,
}

impl Fs {
    /// Makes the device, after a check that its directory can be shared.
    ///
    /// # Errors
    /// It cannot be shared.
    pub fn open(config: FsConfig) -> Result<Self, FsError> {
        let FsConfig { tag, directory, only, read_only, max_descriptors, closed } = config;
        if tag.is_empty() || tag.len() > MAX_TAG_SIZE {
            return Err(FsError::Tag(tag));
        }
        let examine = |error: Errno| FsError::Examine(error.into());
        let status = host_file::status(&directory).map_err(examine)?;
        if host_file::is_kernel_file_system(&directory).map_err(examine)? {
            return Err(FsError::KernelFileSystem);
        }
        let closed = closed.iter().map(|directory| Ok(host_file::Key::of(&host_file::status(directory)?)));
        let closed = closed.collect::<Result<_, _>>().map_err(examine)?;
        let mut space = [0; MAX_TAG_SIZE + 4];
        space[..tag.len()].copy_from_slice(tag.as_bytes());
        space[MAX_TAG_SIZE..].copy_from_slice(&1u32.to_le_bytes());
        let counters = Arc::<FsCounters>::default();
        let identity = DeviceIdentity {
            kind: &KIND,
            name: format!("share {tag}"),
            features: 0,
            queue_sizes: QUEUE_SIZES.to_vec(),
            counters: Some(Arc::clone(&counters) as _),
        };
        let export = Export {
            name: identity.name.clone(),
            directory: Arc::new(directory),
            key: host_file::Key::of(&status),
            only,
            read_only,
            owners: host_file::Owners::of_this_process(),
            max_descriptors,
            closed,
            counters,
        };
        Ok(Self { identity, config: space, export: Arc::new(export) })
    }
}

impl VirtioDevice for Fs {
    fn identity(&self) -> &DeviceIdentity {
        &self.identity
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(&self.config, offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<Vec<Box<dyn Worker>>, ActivateError> {
        // Tables are empty again: what the driver knew is gone with its reset.
        Ok(vec![Box::new(FsWorker::new(activation, Server::new(Arc::clone(&self.export))))])
    }
}
