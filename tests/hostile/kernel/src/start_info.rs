// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the monitor passes: the start info of PVH (`public/arch-x86/hvm/start_info.h` of Xen), its command line and memory map.
// Reason for unsafe code: addresses of memory.
#![allow(unsafe_code)]

use core::ffi::CStr;

const MAGIC: u32 = 0x336e_c578;
/// `XEN_HVM_MEMMAP_TYPE_RAM`.
const RAM: u32 = 1;

/// `hvm_start_info`. The memory map is there from version 1 on.
#[repr(C)]
pub(crate) struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    module_count: u32,
    module_list: u64,
    command_line: u64,
    rsdp: u64,
    memory_map: u64,
    memory_map_entries: u32,
    reserved: u32,
}

/// `hvm_memmap_table_entry`.
#[repr(C)]
struct MemoryMapEntry {
    address: u64,
    size: u64,
    kind: u32,
    reserved: u32,
}

impl StartInfo {
    pub(crate) fn command_line(&self) -> &str {
        if self.magic != MAGIC || self.command_line == 0 {
            return "";
        }
        // SAFETY: the boot protocol has a string with a final zero here, below 4 GiB; nothing writes there.
        let line = unsafe { CStr::from_ptr(self.command_line as *const _) };
        line.to_str().unwrap_or("")
    }

    /// First address after the memory that contains `address`.
    pub(crate) fn memory_end(&self, address: u64) -> Option<u64> {
        if self.version < 1 || self.memory_map == 0 {
            return None;
        }
        let entries = self.memory_map as *const MemoryMapEntry;
        // SAFETY: the boot protocol has so many entries there, below 4 GiB; nothing writes there.
        let entries = unsafe { core::slice::from_raw_parts(entries, self.memory_map_entries as usize) };
        let contains = |entry: &&MemoryMapEntry| entry.kind == RAM && (entry.address..entry.end()).contains(&address);
        entries.iter().find(contains).map(MemoryMapEntry::end)
    }
}

impl MemoryMapEntry {
    fn end(&self) -> u64 {
        self.address.wrapping_add(self.size)
    }
}
