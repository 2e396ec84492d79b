// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a conversion tells its caller while it works. Always on the thread that called `prepare`.

/// One step forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Another process converts the same image; we wait for it.
    Waiting,
    /// A layer begins.
    Layer {
        /// From 1.
        number: usize,
        /// Layers in all.
        count: usize,
    },
    /// Uncompressed bytes of all layers so far.
    Merged {
        /// Grows from call to call.
        bytes: u64,
    },
    /// The root disk is being written.
    Writing {
        /// Bytes so far.
        bytes: u64,
        /// Its final size.
        total: u64,
    },
}
