// SPDX-License-Identifier: Apache-2.0 OR MIT
//! From a layer's archive to its two files, in one pass.

use super::LayerSizes;
use super::data::{DataWriter, FileWriter};
use super::entries::EntryWriter;
use crate::budget::{Budget, OverBudget};
use crate::limits;
use crate::tar::{Entry, Kind, Reader, TarError, TarInput};
use std::fs::File;
use std::io;

#[derive(Debug, thiserror::Error)]
pub enum WriteLayerError {
    #[error(transparent)]
    Tar(#[from] TarError),
    #[error("the image has more than {} entries", limits::MAX_ENTRIES)]
    Entries,
    #[error("sparse files with more than {} GiB of data", limits::MAX_UNCOMPRESSED_BYTES >> 30)]
    TooLarge,
    #[error(transparent)]
    Memory(#[from] OverBudget),
    #[error("cannot write the data of a layer")]
    Data(#[source] io::Error),
    #[error("cannot write the entries of a layer")]
    List(#[source] io::Error),
}

impl WriteLayerError {
    /// Whether the cause is the host rather than the layer.
    pub(crate) fn is_host(&self) -> bool {
        matches!(self, Self::Data(_) | Self::List(_))
    }
}

/// Writes the archive in `input` to two empty files. `each` is called after every entry, and `sizes` at the end of the archive.
pub(crate) fn write_layer<I: TarInput>(
    input: I,
    data: &File,
    entries: &File,
    budget: &Budget,
    mut each: impl FnMut(&mut I),
    sizes: impl FnOnce(&mut I) -> LayerSizes,
) -> Result<(), WriteLayerError> {
    let mut reader = Reader::new(input);
    let (mut data, mut list) = (DataWriter::new(data), EntryWriter::new(entries));
    let mut count = 0;
    while let Some(mut entry) = reader.next_entry()? {
        count += 1;
        if count > limits::MAX_ENTRIES {
            return Err(WriteLayerError::Entries);
        }
        let written = match entry.kind {
            Kind::Regular => Some(write_file(&mut entry, &mut data, budget, &mut reader)?),
            _ => None,
        };
        let (place, tail) = written.unzip();
        list.append(entry, place, &tail.unwrap_or_default()).map_err(WriteLayerError::List)?;
        each(reader.input());
    }
    let sizes = sizes(reader.input());
    let data_bytes = data.finish().map_err(WriteLayerError::Data)?;
    list.finish(sizes, data_bytes).map_err(WriteLayerError::List)
}

fn write_file<I: TarInput>(
    entry: &mut Entry,
    data: &mut DataWriter<'_>,
    budget: &Budget,
    reader: &mut Reader<I>,
) -> Result<(super::FilePlace, Vec<u8>), WriteLayerError> {
    let mut file = FileWriter::new(data, budget, entry.size);
    let whole = [(0, entry.size)];
    let extents = entry.extents.take();
    for &(offset, length) in extents.as_deref().unwrap_or(&whole) {
        let mut done = 0;
        while done < length {
            let bytes = reader.data()?;
            let now = (bytes.len() as u64).min(length - done);
            if now == 0 {
                break;
            }
            file.write(offset + done, &bytes[..now as usize])?;
            reader.consume(now as usize);
            done += now;
        }
    }
    file.finish()
}
