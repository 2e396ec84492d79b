// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What every monitor is asked to run, and what came of it.

use std::path::PathBuf;

/// A guest, the same for every monitor.
pub(super) struct Guest {
    /// Name of the test image.
    pub(super) image: &'static str,
    pub(super) command: Vec<String>,
    pub(super) memory_mib: u32,
    /// A writable disk besides the root, with the serial `bench`.
    pub(super) disk: Option<PathBuf>,
}

impl Guest {
    /// With 1 vCPU and 128 MiB.
    pub(super) fn new(image: &'static str, command: &[&str]) -> Guest {
        Guest { image, command: command.iter().map(|word| (*word).to_owned()).collect(), memory_mib: 128, disk: None }
    }
}

/// A run from start to end.
pub(super) struct Outcome {
    /// From the start of the process.
    pub(super) first_byte_us: u64,
    /// To its end.
    pub(super) end_us: u64,
    /// User and system time of the process, its guest's included.
    pub(super) cpu_us: u64,
    pub(super) stdout: Vec<u8>,
}
