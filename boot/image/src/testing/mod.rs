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

use crate::budget::Budget;
use crate::convert::write_root_disk;
use crate::digest::Digest;
use crate::layer_files::{Extent, FilePlace, LayerFiles, LayerSizes, WriteLayerError, write_layer};
use crate::root_disk::{RootDiskError, RootFormat, Volume};
use crate::tree::{Merge, MergeError, Tree};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Merges `layers` and returns the bytes of the EROFS image.
pub(crate) fn image_of(layers: &[Vec<u8>]) -> Result<Vec<u8>, MergeError> {
    Ok(image_as(RootFormat::Erofs, layers)?.unwrap())
}

/// Merges `layers` and returns the bytes of the whole disk in `format`.
pub(crate) fn image_as(format: RootFormat, layers: &[Vec<u8>]) -> Result<Result<Vec<u8>, RootDiskError>, MergeError> {
    let layers: Vec<LayerFiles> = layers.iter().map(|layer| layer_files(layer).unwrap()).collect();
    let tree = merged(&layers)?;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("root");
    let file = std::fs::File::create(&path).unwrap();
    let volume = Volume { uuid: [7; 16], name: *b"test\0\0\0\0\0\0\0\0\0\0\0\0" };
    let written = write_root_disk(format, &tree, &layers, &volume, &file, u64::MAX, &|_, _| {});
    Ok(written.map(|written| {
        let mut bytes = std::fs::read(&path).unwrap();
        assert_eq!(written.digest, Digest::of(&bytes));
        assert_eq!(written.bytes, bytes.len() as u64);
        for number in written.layers {
            let (layer, start) = (&layers[number], bytes.len());
            bytes.resize(start + layer.data_bytes() as usize, 0);
            let whole = FilePlace::Sparse {
                bits: 0,
                extents: [Extent { offset: 0, length: layer.data_bytes(), position: 0 }].into(),
            };
            layer.read_file(&whole, layer.data_bytes(), &mut bytes[start..], 0).unwrap();
        }
        bytes
    }))
}

/// Converts a layer into files without a name.
pub(crate) fn layer_files(archive: &[u8]) -> Result<LayerFiles, WriteLayerError> {
    let [data, entries] = [(); 2].map(|()| tempfile::tempfile().unwrap());
    let sizes = |_: &mut &[u8]| LayerSizes { uncompressed: archive.len() as u64, stored: archive.len() as u64 };
    write_layer(archive, &data, &entries, &Budget::default(), |_| {}, sizes)?;
    Ok(LayerFiles::open(Digest::of(archive), data, entries).unwrap().expect("what was written is complete"))
}

pub(crate) fn merged(layers: &[LayerFiles]) -> Result<Tree, MergeError> {
    let mut merge = Merge::new(Arc::default());
    for (number, layer) in layers.iter().enumerate() {
        merge.layer(number as u32, layer.entries())?;
    }
    Ok(merge.finish())
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
