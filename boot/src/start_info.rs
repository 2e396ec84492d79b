// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The PVH start info with its memory map and module list (`public/arch-x86/hvm/start_info.h` of
//! Xen, version 1). Plain data; any thread.

use crate::hardware_description::HardwareDescription;
use crate::layout;
use vm_memory::GuestAddress;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{Immutable, IntoBytes};

const MAGIC: u32 = 0x336e_c578;
/// The first version with a memory map.
const VERSION: u32 = 1;

/// `hvm_start_info`.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct StartInfo {
    magic: U32,
    version: U32,
    flags: U32,
    module_count: U32,
    module_list: U64,
    command_line: U64,
    /// ACPI's root pointer, or 0.
    rsdp: U64,
    memory_map: U64,
    memory_map_entries: U32,
    reserved: U32,
}

/// `hvm_modlist_entry`: the initramfs.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct Module {
    address: U64,
    size: U64,
    command_line: U64,
    reserved: U64,
}

/// `hvm_memmap_table_entry`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct MemoryMapEntry {
    address: U64,
    size: U64,
    kind: U32,
    reserved: U32,
}

const _: () = assert!(size_of::<StartInfo>() == 56);
const _: () = assert!(size_of::<Module>() == 32);
const _: () = assert!(size_of::<MemoryMapEntry>() == 24);

/// `XEN_HVM_MEMMAP_TYPE_RAM`, the same number as in an e820 map.
const RAM: u32 = 1;
/// `XEN_HVM_MEMMAP_TYPE_RESERVED`: the guest does not use it.
const RESERVED: u32 = 2;

impl StartInfo {
    /// Points to `module_count` modules, the command line, `memory_map_entries` entries of the
    /// memory map, and ACPI tables if there are any, each at its address in [`layout`].
    pub(crate) fn new(module_count: u32, memory_map_entries: usize, description: HardwareDescription) -> Self {
        Self {
            magic: MAGIC.into(),
            version: VERSION.into(),
            flags: 0.into(),
            module_count: module_count.into(),
            module_list: if module_count == 0 { 0 } else { layout::MODULE_LIST.0 }.into(),
            command_line: layout::COMMAND_LINE.0.into(),
            rsdp: if description == HardwareDescription::Acpi { layout::ACPI_TABLES.0 } else { 0 }.into(),
            memory_map: layout::MEMORY_MAP.0.into(),
            memory_map_entries: (memory_map_entries as u32).into(),
            reserved: 0.into(),
        }
    }
}

impl Module {
    pub(crate) fn new(address: GuestAddress, size: usize) -> Self {
        Self { address: address.0.into(), size: (size as u64).into(), command_line: 0.into(), reserved: 0.into() }
    }
}

/// Returns the memory map of a guest of `memory_bytes`. The gate and the MP table at the end of
/// base memory are reserved; the BIOS area and the hole are absent.
pub(crate) fn memory_map(memory_bytes: u64) -> Vec<MemoryMapEntry> {
    let entry = |start: GuestAddress, end: u64, kind: u32| MemoryMapEntry {
        address: start.0.into(),
        size: (end - start.0).into(),
        kind: kind.into(),
        reserved: 0.into(),
    };
    let low_end = layout::low_memory_end(memory_bytes).0;
    let mut map = vec![
        entry(GuestAddress(0), layout::SYSCALL_GATE.0, RAM),
        entry(layout::SYSCALL_GATE, layout::BASE_MEMORY_END.0, RESERVED),
        entry(layout::HIGH_MEMORY, low_end, RAM),
    ];
    if let Some(&(start, length)) = layout::memory_regions(memory_bytes).get(1) {
        map.push(entry(start, start.0 + length as u64, RAM));
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ranges(memory_bytes: u64) -> Vec<(u64, u64, u32)> {
        let plain = |entry: &MemoryMapEntry| (entry.address.get(), entry.size.get(), entry.kind.get());
        memory_map(memory_bytes).iter().map(plain).collect()
    }

    #[test]
    fn map_of_128_mib_has_base_memory_and_one_range_above() {
        let expected = [(0, 0x97000, RAM), (0x97000, 0x9000, RESERVED), (0x10_0000, 0x7f0_0000, RAM)];
        assert_eq!(ranges(128 << 20), expected);
    }

    #[test]
    fn start_info_has_its_magic_and_points_to_each_table() {
        let info = StartInfo::new(1, 3, HardwareDescription::CommandLine);
        let bytes = info.as_bytes();
        assert_eq!(bytes[..16], [0x78, 0xc5, 0x6e, 0x33, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
        let words: Vec<u64> =
            bytes[16..].chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect();
        assert_eq!(words, [layout::MODULE_LIST.0, layout::COMMAND_LINE.0, 0, layout::MEMORY_MAP.0, 3]);
    }

    proptest! {
        #[test]
        fn map_ascends_and_its_ram_is_backed(pages in layout::MIN_MEMORY / 4096..=layout::MAX_MEMORY / 4096) {
            let memory_bytes = pages * 4096;
            let regions = layout::memory_regions(memory_bytes);
            let mut free_from = 0;
            for (start, size, _) in ranges(memory_bytes) {
                prop_assert!(start >= free_from && size > 0);
                free_from = start + size;
                let backed = regions.iter().any(|(base, length)| start >= base.0 && free_from <= base.0 + *length as u64);
                prop_assert!(backed);
            }
        }
    }
}
