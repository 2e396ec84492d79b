// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An image reference in, a root disk and the image's configuration out.
//!
//! [`prepare`] finds the image that an [`ImageReference`] names, merges its layers and writes them
//! as one EROFS (or squashfs) image, or finds that in the cache. Layers are streamed: nothing of an
//! image is extracted to a host directory, and no name in it becomes a host path.
//!
//! Runs on the caller's thread; a conversion uses one more, for reading and decompressing, then for
//! hashing.
#![forbid(unsafe_code)]

mod archive;
mod budget;
mod cache;
mod config;
mod convert;
mod decompress;
mod digest;
mod erofs;
mod export;
mod ext4;
mod ext4_writer;
mod file_system;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod image;
mod layer;
mod layer_files;
mod limits;
mod machine_tree;
mod name;
mod platform;
mod prepare;
mod progress;
mod reference;
mod root_disk;
mod source;
mod spool;
mod squashfs;
mod tar;
#[cfg(test)]
mod testing;
mod tree;

pub use archive::{ArchiveError, ArchivePart, read_archive};
pub use budget::OverBudget;
pub use cache::{CacheError, Pruned, abandon_conversions, prune_cache};
pub use config::{ConfigError, ImageConfig};
pub use convert::{ConvertError, LayersAhead};
pub use decompress::UnpackError;
pub use digest::{Digest, DigestError, Hasher};
pub use export::{export_ext4, export_tar};
pub use ext4_writer::Ext4Error;
pub use file_system::{FileKind, FileSystemError};
pub use image::{
    Commit, CommitError, ContainedImage, Contents, ImageError, ImportedConfig, Reference, References, check_platform,
    diff_ids, references,
};
pub use layer::LayerError;
pub use layer_files::WriteLayerError;
pub use limits::MAX_INDEX_DEPTH;
pub use machine_tree::{ChangeKind, FileSink, Location, MachineTree, TreeError};
pub use name::{ImageName, NameError};
pub use platform::{Platform, PlatformError};
pub use prepare::{
    Error, FindRootDiskError, ImageDescription, Prepare, PreparedImage, describe, find_root_disk, prepare,
};
pub use progress::Progress;
pub use reference::{ImageReference, ReferenceError};
pub use root_disk::{RootDisk, RootDiskError, RootDiskPart, RootFormat};
pub use source::SourceError;
pub use tar::{Entry, Kind as EntryKind, TarError, TarWriter, Time};
pub use tree::{Fault, MergeError};
