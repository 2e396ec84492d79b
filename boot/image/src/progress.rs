// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a conversion reports to its caller while it works. Always on the thread that called `prepare`.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Another process converts the same image; we wait for it.
    Waiting,
    /// The layers are being unpacked and merged.
    Layers {
        /// The one that is at hand, from 1.
        number: usize,
        count: usize,
        /// Bytes read so far of the files of all layers. Grows from call to call.
        bytes: u64,
        /// What these files have in all; not known if one of them is missing.
        total: Option<u64>,
    },
    /// The root disk is being written.
    Writing { bytes: u64, total: u64 },
}
