// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Writes the parts one after another: superblock, data, tables.

use super::format::*;
use super::inodes::Tables;
use super::plan::Plan;
use crate::layer_files::{FilePlace, LayerFiles};
use crate::root_disk::{Chunks, Output, RootDiskError, Written, write_output};
use crate::tree::{Content, Tree};
use std::fs::File;
use zerocopy::IntoBytes as _;

/// The size of the file is a multiple of this, like that of a disk.
const PADDING: u64 = 4096;

/// Writes `tree`, whose data is in `layers`, to the empty `file`. `progress` gets the bytes written
/// and the size.
pub(crate) fn write(
    tree: &Tree,
    layers: &[LayerFiles],
    file: &File,
    max_bytes: u64,
    progress: &dyn Fn(u64, u64),
) -> Result<Written, RootDiskError> {
    let plan = Plan::new(tree, max_bytes)?;
    let (superblock, tail) = lay_out(&plan, Tables::new(tree, &plan)?);
    let bytes = superblock.bytes_used.get().next_multiple_of(PADDING);
    let digest = write_output(
        file,
        |_| {},
        &|written| progress(written, bytes),
        |output| {
            output.bytes(superblock.as_bytes())?;
            write_data(tree, &plan, layers, output)?;
            tail.iter().try_for_each(|part| output.bytes(part))?;
            output.zeros_to(bytes).map_err(RootDiskError::Write)
        },
    )?;
    Ok(Written { digest, bytes, layers: Vec::new() })
}

/// Returns the superblock and the parts after the data. The kernel checks their order and adjacency
/// (`fs/squashfs/super.c`).
fn lay_out(plan: &Plan, tables: Tables) -> (SuperBlock, Vec<Vec<u8>>) {
    let mut tail: Vec<Vec<u8>> = Vec::new();
    let mut end = plan.data_end;
    let mut append = |part: Vec<u8>| {
        let start = end;
        end += part.len() as u64;
        tail.push(part);
        start
    };
    let places = |places: &mut dyn Iterator<Item = u64>| places.flat_map(u64::to_le_bytes).collect::<Vec<u8>>();

    let inode_table = append(tables.inodes.stored().to_vec());
    let directory_table = append(tables.directories.stored().to_vec());
    let (owners, ids) = tables.owners.finish();
    let ids_start = append(ids.stored().to_vec());
    let id_table = append(places(&mut ids.blocks(ids_start)));
    let xattrs = tables.xattrs;
    let mut xattr_table = INVALID_TABLE;
    if xattrs.count() > 0 {
        let values_start = append(xattrs.values.stored().to_vec());
        let sets_start = append(xattrs.ids.stored().to_vec());
        let header =
            XattrIdTable { xattr_table_start: values_start.into(), xattr_ids: xattrs.count().into(), unused: 0.into() };
        let sets = places(&mut xattrs.ids.blocks(sets_start));
        xattr_table = append([header.as_bytes(), &sets].concat());
    }
    let superblock = SuperBlock {
        magic: MAGIC.into(),
        inodes: plan.count.into(),
        mkfs_time: 0.into(),
        block_size: (BLOCK as u32).into(),
        fragments: 0.into(),
        compression: ZLIB_COMPRESSION.into(),
        block_log: (BLOCK.ilog2() as u16).into(),
        flags: (FLAGS | if xattrs.count() == 0 { NO_XATTRS } else { 0 }).into(),
        no_ids: owners.into(),
        major: 4.into(),
        minor: 0.into(),
        root_inode: tables.root.into(),
        bytes_used: end.into(),
        id_table_start: id_table.into(),
        xattr_id_table_start: xattr_table.into(),
        inode_table_start: inode_table.into(),
        directory_table_start: directory_table.into(),
        // An empty table: the kernel ignores it, `unsquashfs` uses it as the end of the
        // directories.
        fragment_table_start: ids_start.into(),
        lookup_table_start: INVALID_TABLE.into(),
    };
    (superblock, tail)
}

fn write_data(tree: &Tree, plan: &Plan, layers: &[LayerFiles], output: &mut Output<'_>) -> Result<(), RootDiskError> {
    for file in &plan.files {
        let Content::Regular { size, layer, place } = &tree.node(*file).content else { continue };
        debug_assert_eq!(output.position(), plan.of(*file).start, "the data is where the plan says");
        let layer = &layers[*layer as usize];
        let mut copy = |start: u64, length: u64| {
            output.take_from(length, |into, offset| {
                layer.read_file(place, *size, into, start + offset).map_err(RootDiskError::Layer)
            })
        };
        match place {
            FilePlace::Contiguous { .. } => copy(0, *size)?,
            FilePlace::Sparse { extents, .. } => {
                let chunks = Chunks::of_bytes(*size, BLOCK);
                chunks.stored(extents).try_for_each(|chunk| copy(chunk * BLOCK, chunks.length(chunk)))?;
            }
        }
    }
    Ok(())
}
