// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The file system device: a directory of the host, or one file of it, in the guest. Virtio 1.3,
//! 5.11; the requests are those of FUSE (`include/uapi/linux/fuse.h`). Each device has an event
//! loop of its own, because file I/O blocks.
//!
//! | queue | direction | carries |
//! |---|---|---|
//! | 0 | from the driver | requests without an answer (FORGET), served first |
//! | 1 | from the driver | all other requests |
//!
//! Files: `device.rs` is called by vCPUs, `worker.rs` owns the queues, `request.rs` parses,
//! `server.rs` dispatches; `names.rs`, `files.rs`, `listing.rs`, `attributes.rs` and `xattr.rs` carry out;
//! `inodes.rs` and `handles.rs` are the two tables that the guest can fill, and their bounds.
//!
//! A guest gives names, never paths: a name is one component, resolved below a directory that was
//! reached in the same way, by `openat2` without symbolic links. Links are resolved by the guest in
//! its own tree.
//!
//! File systems of the kernel, and directories that the configuration names, are closed: the guest sees an empty directory, which
//! it can mount on and not enter.
//!
//! Not supported: DAX, several request queues, write-back caching, locks across machines,
//! notifications from the host (caches are valid for a second), extended attributes outside `user.`,
//! device nodes.

mod attributes;
mod device;
mod files;
mod handles;
mod host_file;
mod inodes;
mod listing;
mod names;
mod request;
mod server;
mod wire;
mod worker;
mod xattr;

pub use device::{Fs, FsConfig, FsCounters, FsError, KIND, MAX_TAG_SIZE};

#[cfg(test)]
mod kernel_tests;
#[cfg(test)]
#[path = "fs_tests.rs"]
mod tests;
