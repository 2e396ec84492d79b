// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Shared by the tests of this crate: arbitrary archives, image layouts, random layers, and a
//! reader of each format that shares no code with the writer.

mod archive;
mod layout;
mod model;
pub(crate) mod overlay;
mod read_back;
mod read_squashfs;

pub(crate) use archive::{Archive, Member, pax_record};
pub(crate) use layout::{Layout, gzip, gzip_best, zstd};
pub(crate) use model::{Model, step};
pub(crate) use read_back::{Found, read_back};
pub(crate) use read_squashfs::read_squashfs;

use crate::convert::write_root_disk;
use crate::root_disk::{RootDiskError, RootFormat, Volume};
use crate::spool::Spool;
use crate::tree::{Merge, MergeError};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Merges `layers` and returns the bytes of the EROFS image.
pub(crate) fn image_of(layers: &[Vec<u8>]) -> Result<Vec<u8>, MergeError> {
    Ok(image_as(RootFormat::Erofs, layers)?.unwrap())
}

/// Merges `layers` and returns the bytes of the image in `format`.
pub(crate) fn image_as(format: RootFormat, layers: &[Vec<u8>]) -> Result<Result<Vec<u8>, RootDiskError>, MergeError> {
    let directory = tempfile::tempdir().unwrap();
    let mut merge = Merge::new(Spool::create(directory.path()).unwrap(), Arc::default());
    for layer in layers {
        merge.layer(layer.as_slice(), |_| {})?;
    }
    let (tree, spool) = merge.finish();
    let path = directory.path().join("root");
    let file = std::fs::File::create(&path).unwrap();
    let volume = Volume { uuid: [7; 16], name: *b"test\0\0\0\0\0\0\0\0\0\0\0\0" };
    let written = write_root_disk(format, &tree, &spool.into_file().unwrap(), &volume, &file, u64::MAX, &|_, _| {});
    Ok(written.map(|written| {
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(written.digest, crate::digest::Digest::of(&bytes));
        assert_eq!(written.bytes, bytes.len() as u64);
        bytes
    }))
}

/// Merges `layers` and returns the files that are read back from the image, by path.
pub(crate) fn files_of(layers: &[Archive]) -> Result<BTreeMap<String, Found>, MergeError> {
    let layers: Vec<Vec<u8>> = layers.iter().map(Archive::bytes).collect();
    image_of(&layers).map(|image| read_back(&image))
}

/// Names of the files, in order.
pub(crate) fn names(files: &BTreeMap<String, Found>) -> Vec<&str> {
    files.keys().map(String::as_str).collect()
}
