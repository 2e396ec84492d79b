// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The files of an image as an ext4 file system or a tar archive, from its root disk.

use crate::budget::Budget;
use crate::digest::Digest;
use crate::erofs::Erofs;
use crate::ext4_writer::{self, Ext4Error};
use crate::machine_tree::{MachineTree, TreeError};
use crate::root_disk::RootDisk;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;

/// Writes the files of an image to the empty `output` as an ext4 file system with free space and a journal. `root_disk` is the EROFS
/// image of the image with this digest, from which the volume has its UUID.
///
/// # Errors
/// The root disk is damaged, a file does not fit into ext4, or `output` fails.
pub fn export_ext4(
    root_disk: RootDisk,
    image_digest: &str,
    output: &File,
    progress: &dyn Fn(u64, u64),
) -> Result<(), Ext4Error> {
    let budget = Arc::new(Budget::default());
    let source = Erofs::open(root_disk, budget.clone())?;
    let uuid = Digest::parse(image_digest).map_or([0; 16], |digest| digest.first_bytes());
    ext4_writer::write(&source, uuid, output, &budget, progress)
}

/// Writes the files of an image to `output` as a tar archive.
///
/// # Errors
/// The root disk is damaged, or `output` fails.
pub fn export_tar(root_disk: RootDisk, output: impl Write) -> Result<(), TreeError> {
    MachineTree::of_image(root_disk)?.write_archive(output).map(drop)
}
