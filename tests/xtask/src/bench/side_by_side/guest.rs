// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What each monitor runs, and the result.

use super::tap::Tap;
use std::path::PathBuf;

/// A guest, the same for all monitors.
pub(super) struct Guest {
    /// The name of a test image.
    pub(super) image: &'static str,
    pub(super) command: Vec<String>,
    pub(super) memory_mib: u32,
    /// A writable disk besides the root, with the serial `bench`.
    pub(super) disk: Option<PathBuf>,
    /// The host's side of its network interface.
    pub(super) tap: Option<Tap>,
}

impl Guest {
    /// With 1 vCPU and 128 MiB.
    pub(super) fn new(image: &'static str, command: &[&str]) -> Guest {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        Guest { image, command, memory_mib: 128, disk: None, tap: None }
    }
}

pub(super) struct Outcome {
    /// Microseconds since the start of the process.
    pub(super) first_byte_us: u64,
    pub(super) end_us: u64,
    /// User and system time of the process, that of its guest included.
    pub(super) cpu_us: u64,
    pub(super) stdout: Vec<u8>,
}
