// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Progress of a conversion, reported on the thread that called `prepare`.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Waiting for another process that converts the same image.
    Waiting,
    /// The layers are being unpacked and merged.
    Layers {
        /// The current one, from 1.
        number: usize,
        count: usize,
        /// Bytes of the files of all layers read so far; never decreases.
        bytes: u64,
        /// Total size of these files; `None` if one of them is missing.
        total: Option<u64>,
    },
    /// The root disk is being written.
    Writing { bytes: u64, total: u64 },
}
