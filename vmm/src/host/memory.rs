// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Guest memory: anonymous, private, reserved nowhere (`MAP_NORESERVE`), so that it costs what the guest touches. Runs
//! on `main`.

use boot::{GuestMemory, layout};

/// The host cannot give the guest its memory.
#[derive(Debug, thiserror::Error)]
#[error("cannot map {mib} MiB of guest memory")]
pub(crate) struct MemoryError {
    mib: u64,
    #[source]
    source: vm_memory::mmap::FromRangesError,
}

/// Maps the memory of a guest of `bytes`, around the hole below 4 GiB.
///
/// # Errors
/// The address space or its limit (`RLIMIT_AS`) is too small.
pub(crate) fn allocate(bytes: u64) -> Result<GuestMemory, MemoryError> {
    GuestMemory::from_ranges(&layout::memory_regions(bytes)).map_err(|source| MemoryError { mib: bytes >> 20, source })
}
