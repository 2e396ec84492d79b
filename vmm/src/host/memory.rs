// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Guest memory: anonymous, private and not reserved (`MAP_NORESERVE`), so that it costs what the guest touches. Runs on `main`.
#![allow(unsafe_code, reason = "madvise on guest memory, for which there is no safe wrapper")]

use super::lost_memory;
use boot::{GuestMemory, layout};
use libc::{MAP_NORESERVE, MAP_PRIVATE, PROT_READ, PROT_WRITE};
use rustix::mm::{Advice, madvise};
use std::error::Error;
use std::fs::File;
use std::sync::Arc;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{FileOffset, GuestMemoryBackend as _, GuestRegionMmap};

#[derive(Debug, thiserror::Error)]
#[error("cannot map {mib} MiB of guest memory: {cause}")]
pub(crate) struct MemoryError {
    mib: u64,
    /// The innermost error; those around it repeat it.
    cause: String,
}

/// Maps the memory of a guest of `bytes`, around the hole below 4 GiB. It is left out of core dumps. With `huge_pages` the
/// kernel backs it with huge pages where it can.
///
/// # Errors
/// The address space or its limit (`RLIMIT_AS`) is too small.
pub(crate) fn allocate(bytes: u64, huge_pages: bool) -> Result<GuestMemory, MemoryError> {
    let memory = GuestMemory::from_ranges(&layout::memory_regions(bytes)).map_err(failure(bytes))?;
    for region in memory.iter() {
        advise(region, Advice::LinuxDontDump);
        if huge_pages {
            advise(region, Advice::LinuxHugepage);
        }
    }
    Ok(memory)
}

/// Maps the memory of a guest of `bytes` from a snapshot, whose `file` has it without the hole. Nothing is read that the guest does
/// not touch, and nothing that it writes reaches the file. If the file is made shorter, [`lost_memory`] ends the machine.
///
/// # Errors
/// The address space or its limit (`RLIMIT_AS`) is too small.
pub(crate) fn map_snapshot(bytes: u64, file: File) -> Result<GuestMemory, MemoryError> {
    let file = Arc::new(file);
    let (mut regions, mut offset) = (Vec::new(), 0);
    for (start, length) in layout::memory_regions(bytes) {
        let mapped = MmapRegionBuilder::new(length)
            .with_file_offset(FileOffset::from_arc(Arc::clone(&file), offset))
            .with_mmap_prot(PROT_READ | PROT_WRITE)
            .with_mmap_flags(MAP_PRIVATE | MAP_NORESERVE)
            .build();
        let region = GuestRegionMmap::new(mapped.map_err(failure(bytes))?, start);
        regions.push(region.expect("the layout has no address beyond 2^64"));
        offset += length as u64;
    }
    let memory = GuestMemory::from_regions(regions).map_err(failure(bytes))?;
    memory.iter().for_each(|region| advise(region, Advice::LinuxDontDump));
    lost_memory::watch(&memory);
    Ok(memory)
}

fn failure<E: Error>(bytes: u64) -> impl Fn(E) -> MemoryError {
    move |error| {
        let mut cause: &dyn Error = &error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        MemoryError { mib: bytes >> 20, cause: cause.to_string() }
    }
}

/// A kernel that does not know an advice works without it.
fn advise(region: &GuestRegionMmap, advice: Advice) {
    // SAFETY: the range is a mapping of this process, and neither advice changes its contents.
    let advised = unsafe { madvise(region.as_ptr().cast(), region.size(), advice) };
    if let Err(error) = advised {
        log::debug!("madvise {advice:?} of guest memory: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_memory_is_left_out_of_core_dumps() {
        let memory = allocate(64 << 20, false).unwrap();
        let start = memory.iter().next().unwrap().as_ptr() as usize;
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        // The kernel may have joined it with a neighbour.
        let holds_start = |line: &str| {
            let range = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
            let ends = range.and_then(|(from, to)| {
                Some((usize::from_str_radix(from, 16).ok()?, usize::from_str_radix(to, 16).ok()?))
            });
            ends.is_some_and(|(from, to)| (from..to).contains(&start))
        };
        let mut mapping = smaps.lines().skip_while(|line| !holds_start(line));
        let flags = mapping.find(|line| line.starts_with("VmFlags:")).unwrap();
        assert!(flags.split_whitespace().any(|flag| flag == "dd"), "{flags}");
    }
}
