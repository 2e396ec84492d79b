// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Every guest-physical address and port of the machine, in one table, checked for overlaps at
//! compile time. Pure; any thread.
//!
//! | from | to | what | in the guest's memory map |
//! |---|---|---|---|
//! | 0 | 0x1000 | empty: the kernel looks here for BIOS data | RAM |
//! | 0x1000 | 0x6000 | tables that the kernel reads at its entry, one page each | RAM |
//! | 0x97000 | 0x9f000 | system-call gate | reserved |
//! | 0x9fc00 | 0xa0000 | MP table, where kernels look first, if there is one | reserved |
//! | 0xa0000 | 1 MiB | BIOS area: zeroes, and ACPI tables at 0xe0000, if there are any | nothing |
//! | 1 MiB | 3 GiB or less | kernel at its link address, initramfs at the end | RAM |
//! | 3 GiB | 4 GiB | the hole: device windows, interrupt controllers, KVM's own pages | nothing |
//! | 4 GiB | | the rest of the memory | RAM |

use vm_memory::GuestAddress;

pub const PAGE_SIZE: u64 = 0x1000;

pub const MIN_MEMORY: u64 = 64 << 20;
/// Half of KVM's largest memory slot, and within the guest-physical range of every 64-bit host.
pub const MAX_MEMORY: u64 = 4 << 40;
pub const MAX_CPUS: u8 = 32;

/// Global descriptor table of the entry state.
pub const GDT: GuestAddress = GuestAddress(0x1000);
/// PVH start info.
pub const START_INFO: GuestAddress = GuestAddress(0x2000);
/// PVH module list.
pub const MODULE_LIST: GuestAddress = GuestAddress(0x3000);
/// PVH memory map.
pub const MEMORY_MAP: GuestAddress = GuestAddress(0x4000);
/// The guest address of the kernel command line.
pub const COMMAND_LINE: GuestAddress = GuestAddress(0x5000);
/// Maximum size of the command line with its final NUL, as in an x86 kernel, which silently cuts
/// off the rest.
pub const COMMAND_LINE_SIZE: usize = 2048;

/// Pages for the system-call gate of hosts that emulate guest kernel mode. Reserved on every host,
/// so that all have one memory map.
pub const SYSCALL_GATE: GuestAddress = GuestAddress(0x97000);
pub const SYSCALL_GATE_SIZE: u64 = 8 * PAGE_SIZE;
/// Last KiB of base memory: MP floating pointer and configuration table.
pub const MP_TABLE: GuestAddress = GuestAddress(0x9fc00);
pub const MP_TABLE_SIZE: u64 = 0x400;
/// End of base memory (640 KiB).
pub const BASE_MEMORY_END: GuestAddress = GuestAddress(0xa0000);
/// ACPI tables: in the BIOS area, where kernels also search for them.
pub const ACPI_TABLES: GuestAddress = GuestAddress(0xe_0000);
pub const ACPI_TABLES_SIZE: u64 = 2 * PAGE_SIZE;
/// Start of the memory for kernel and initramfs.
pub const HIGH_MEMORY: GuestAddress = GuestAddress(0x10_0000);

/// Start of the hole below 4 GiB, which has no memory.
pub const HOLE_START: GuestAddress = GuestAddress(0xc000_0000);
/// End of the hole: memory that does not fit below it continues here.
pub const HOLE_END: GuestAddress = GuestAddress(0x1_0000_0000);
/// First register window of a virtio-mmio device.
pub const VIRTIO_MMIO_BASE: GuestAddress = GuestAddress(0xd000_0000);
/// Size of one virtio-mmio register window.
pub const VIRTIO_MMIO_WINDOW: u64 = PAGE_SIZE;
/// Number of virtio-mmio windows: one per interrupt line.
pub const VIRTIO_MMIO_COUNT: u32 = LAST_VIRTIO_IRQ - FIRST_VIRTIO_IRQ + 1;
/// A write to this page is a system call through [`SYSCALL_GATE`].
pub const SYSCALL_GATE_MMIO: GuestAddress = GuestAddress(0xd0ff_f000);
/// Registers of the IO-APIC.
pub const IO_APIC: GuestAddress = GuestAddress(0xfec0_0000);
/// Registers of each CPU's local APIC.
pub const LOCAL_APIC: GuestAddress = GuestAddress(0xfee0_0000);
/// The page that Intel hosts need for real mode (`KVM_SET_IDENTITY_MAP_ADDR`).
pub const KVM_IDENTITY_MAP: GuestAddress = GuestAddress(0xfffb_c000);
/// The three pages that Intel hosts need for real mode (`KVM_SET_TSS_ADDR`).
pub const KVM_TSS: GuestAddress = GuestAddress(0xfffb_d000);

/// First port of the first serial port.
pub const COM1: u16 = 0x3f8;
/// Number of ports of a serial port.
pub const COM1_PORTS: u16 = 8;
pub const COM1_IRQ: u32 = 4;
/// Command port of a keyboard controller, of which only the reset line exists (`reboot=k`).
pub const RESET: u16 = 0x64;
/// Sleep control register of ACPI (specification 6.5, 4.8.3.7). The sleep status and reset
/// registers follow.
pub const SLEEP_CONTROL: u16 = 0x600;
pub const SLEEP_STATUS: u16 = SLEEP_CONTROL + 1;
pub const ACPI_RESET: u16 = SLEEP_CONTROL + 2;
/// Value that resets the machine, written to [`ACPI_RESET`].
pub const ACPI_RESET_VALUE: u8 = 1;
/// Sleep type (3 bits) of "off".
pub const SLEEP_TYPE_OFF: u8 = 5;
/// A byte written here ends the machine with that exit status: for guests without coracle's init.
pub const EXIT_STATUS: u16 = 0xf4;

/// First interrupt line of a virtio device. The lines below are those of timer (0), keyboard
/// controller (1), cascade (2) and serial ports (3, 4).
pub const FIRST_VIRTIO_IRQ: u32 = 5;
/// Last interrupt line of a virtio device, and the last pin of KVM's IO-APIC. The machine has none
/// of a PC's devices on these lines: clock (8), mouse (12), coprocessor (13), disks (14, 15).
pub const LAST_VIRTIO_IRQ: u32 = 23;

/// A named range of guest-physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    pub name: &'static str,
    pub start: u64,
    pub size: u64,
}

const fn area(name: &'static str, start: GuestAddress, size: u64) -> Area {
    Area { name, start: start.0, size }
}

/// Areas below 1 MiB that must not overlap, in ascending order.
pub const LOW_AREAS: [Area; 8] = [
    area("GDT", GDT, PAGE_SIZE),
    area("start info", START_INFO, PAGE_SIZE),
    area("module list", MODULE_LIST, PAGE_SIZE),
    area("memory map", MEMORY_MAP, PAGE_SIZE),
    area("command line", COMMAND_LINE, PAGE_SIZE),
    area("system-call gate", SYSCALL_GATE, SYSCALL_GATE_SIZE),
    area("MP table", MP_TABLE, MP_TABLE_SIZE),
    area("ACPI tables", ACPI_TABLES, ACPI_TABLES_SIZE),
];

/// Areas in the hole below 4 GiB that must not overlap, in ascending order.
pub const HOLE_AREAS: [Area; 6] = [
    area("virtio-mmio windows", VIRTIO_MMIO_BASE, VIRTIO_MMIO_COUNT as u64 * VIRTIO_MMIO_WINDOW),
    area("system-call notification", SYSCALL_GATE_MMIO, PAGE_SIZE),
    area("IO-APIC", IO_APIC, PAGE_SIZE),
    area("local APIC", LOCAL_APIC, PAGE_SIZE),
    area("KVM identity map", KVM_IDENTITY_MAP, PAGE_SIZE),
    area("KVM TSS", KVM_TSS, 3 * PAGE_SIZE),
];

/// Whether `areas` ascend from `start` to `end` without an overlap.
const fn are_disjoint(areas: &[Area], start: GuestAddress, end: GuestAddress) -> bool {
    let mut free_from = start.0;
    let mut index = 0;
    while index < areas.len() {
        if areas[index].start < free_from || areas[index].size == 0 {
            return false;
        }
        free_from = areas[index].start + areas[index].size;
        index += 1;
    }
    free_from <= end.0
}

const _: () = assert!(are_disjoint(&LOW_AREAS, GuestAddress(PAGE_SIZE), HIGH_MEMORY), "low areas overlap");
const _: () = assert!(are_disjoint(&HOLE_AREAS, HOLE_START, HOLE_END), "areas of the hole overlap");
const _: () = assert!(COMMAND_LINE_SIZE as u64 <= PAGE_SIZE, "the command line has one page");
const _: () = assert!(SYSCALL_GATE.0.is_multiple_of(PAGE_SIZE), "page tables map the gate");
const _: () = assert!(SYSCALL_GATE_MMIO.0.is_multiple_of(PAGE_SIZE), "page tables map the notification page");
const _: () = assert!(MP_TABLE.0 + MP_TABLE_SIZE == BASE_MEMORY_END.0, "kernels search the last KiB of base memory");
const _: () = assert!(KVM_TSS.0 == KVM_IDENTITY_MAP.0 + PAGE_SIZE, "the layout in KVM's documentation");

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemorySizeError {
    #[error("the minimum is {}m", MIN_MEMORY >> 20)]
    TooSmall(u64),
    #[error("the maximum is {}t", MAX_MEMORY >> 40)]
    TooLarge(u64),
    #[error("not a multiple of 4 KiB")]
    PartialPage(u64),
}

/// Checks that a guest can have `size_bytes` of memory.
pub const fn check_memory_size(size_bytes: u64) -> Result<(), MemorySizeError> {
    if size_bytes < MIN_MEMORY {
        Err(MemorySizeError::TooSmall(size_bytes))
    } else if size_bytes > MAX_MEMORY {
        Err(MemorySizeError::TooLarge(size_bytes))
    } else if !size_bytes.is_multiple_of(PAGE_SIZE) {
        Err(MemorySizeError::PartialPage(size_bytes))
    } else {
        Ok(())
    }
}

/// Returns the regions of `size_bytes` of memory: from 0 up to the hole, and the rest from 4 GiB.
#[must_use]
pub fn memory_regions(size_bytes: u64) -> Vec<(GuestAddress, usize)> {
    let low = low_memory_end(size_bytes).0;
    let high = size_bytes - low;
    let mut regions = vec![(GuestAddress(0), low as usize)];
    if high > 0 {
        regions.push((HOLE_END, high as usize));
    }
    regions
}

/// Returns the end of the memory below the hole, for a guest of `size_bytes`.
#[must_use]
pub fn low_memory_end(size_bytes: u64) -> GuestAddress {
    GuestAddress(size_bytes.min(HOLE_START.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn memory_above_3_gib_continues_at_4_gib() {
        assert_eq!(memory_regions(64 << 20), [(GuestAddress(0), 64 << 20)]);
        assert_eq!(memory_regions(3 << 30), [(GuestAddress(0), 3 << 30)]);
        assert_eq!(memory_regions(5 << 30), [(GuestAddress(0), 3 << 30), (GuestAddress(4 << 30), 2 << 30)]);
    }

    #[test]
    fn check_memory_size_rejects_sizes_out_of_range() {
        assert_eq!(check_memory_size(0), Err(MemorySizeError::TooSmall(0)));
        assert_eq!(check_memory_size(1 << 20), Err(MemorySizeError::TooSmall(1 << 20)));
        assert_eq!(check_memory_size((64 << 20) + 1), Err(MemorySizeError::PartialPage((64 << 20) + 1)));
        assert_eq!(check_memory_size(u64::MAX), Err(MemorySizeError::TooLarge(u64::MAX)));
        assert_eq!(check_memory_size(64 << 20), Ok(()));
    }

    #[test]
    fn adjacent_areas_are_disjoint_and_shared_bytes_are_not() {
        let area = |start, size| Area { name: "", start, size };
        let fits = |areas: &[Area]| are_disjoint(areas, GuestAddress(10), GuestAddress(40));
        assert!(fits(&[area(10, 10), area(20, 20)]));
        assert!(!fits(&[area(10, 11), area(20, 20)]));
        assert!(!fits(&[area(10, 10), area(20, 21)]));
        assert!(!fits(&[area(9, 1)]));
    }

    proptest! {
        #[test]
        fn regions_cover_the_memory_and_leave_out_the_hole(size in any::<u64>()) {
            let regions = memory_regions(size);
            prop_assert_eq!(regions.iter().map(|(_, length)| *length as u64).sum::<u64>(), size);
            for (start, length) in regions {
                prop_assert!(start >= HOLE_END || start.0 + length as u64 <= HOLE_START.0);
            }
        }
    }
}
