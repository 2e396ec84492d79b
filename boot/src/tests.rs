// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A complete guest is loaded from a tiny configuration, and read back from its memory as a kernel
//! would.

use super::*;
use crate::headers::KernelProblem;
use crate::layout::MemorySizeError;
use crate::test_kernel::{ADDRESS, CODE, TestKernel, load as load_segment, notes, pvh_note};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

fn kernel(description: &TestKernel) -> (TempDir, Kernel) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("vmlinux");
    std::fs::write(&path, description.bytes()).unwrap();
    let kernel = Kernel::open(&path, &KernelCache::default(), &|_, _| {}).unwrap();
    (directory, kernel)
}

fn memory(bytes: u64) -> GuestMemory {
    GuestMemory::from_ranges(&layout::memory_regions(bytes)).unwrap()
}

fn word(memory: &GuestMemory, at: u64) -> u64 {
    memory.read_obj(GuestAddress(at)).unwrap()
}

#[test]
fn load_makes_everything_reachable_from_the_registers() {
    let (_directory, kernel) = kernel(&TestKernel::valid());
    let mut command_line = CommandLine::new();
    command_line.push_flag("quiet").unwrap();
    let initramfs = Initramfs::with_init(b"PID 1").unwrap().finish();
    let config = BootConfig {
        kernel: &kernel,
        initramfs: &initramfs,
        command_line: &command_line,
        description: HardwareDescription::CommandLine,
        devices: &[],
        cpus: 2,
        memory_bytes: 64 * MIB,
    };
    let memory = memory(64 * MIB);

    let entry = load(&memory, &config).unwrap();

    assert_eq!(memory.read_obj::<[u8; 16]>(GuestAddress(entry.rip)).unwrap(), CODE);
    assert_eq!(word(&memory, entry.rbx), 0x1_336e_c578);
    let (module_list, command_line_at) = (word(&memory, entry.rbx + 16), word(&memory, entry.rbx + 24));
    assert_eq!(&memory.read_obj::<[u8; 6]>(GuestAddress(command_line_at)).unwrap(), b"quiet\0");
    let (start, size) = (word(&memory, module_list), word(&memory, module_list + 8));
    assert_eq!(start % layout::PAGE_SIZE, 0);
    let mut found = vec![0; size as usize];
    memory.read_slice(&mut found, GuestAddress(start)).unwrap();
    assert_eq!(found, initramfs);
    assert_eq!(&memory.read_obj::<[u8; 4]>(layout::MP_TABLE).unwrap(), b"_MP_");
    let code = entry.gdt_base + u64::from(entry.code.selector);
    assert_eq!(word(&memory, code), 0x00cf_9b00_0000_ffff);
}

#[test]
fn guest_without_an_initramfs_has_no_module() {
    let (_directory, kernel) = kernel(&TestKernel::valid());
    let command_line = CommandLine::new();
    let config = BootConfig {
        kernel: &kernel,
        initramfs: &[],
        command_line: &command_line,
        description: HardwareDescription::CommandLine,
        devices: &[],
        cpus: 1,
        memory_bytes: 64 * MIB,
    };
    let memory = memory(64 * MIB);
    let entry = load(&memory, &config).unwrap();
    assert_eq!(memory.read_obj::<u32>(GuestAddress(entry.rbx + 12)).unwrap(), 0);
    assert_eq!(word(&memory, entry.rbx + 16), 0);
}

#[test]
fn initramfs_lies_below_the_hole() {
    let (_directory, kernel) = kernel(&TestKernel::valid());
    let command_line = CommandLine::new();
    let initramfs = [1; 5000];
    let config = BootConfig {
        kernel: &kernel,
        initramfs: &initramfs,
        command_line: &command_line,
        description: HardwareDescription::CommandLine,
        devices: &[],
        cpus: 1,
        memory_bytes: 8 << 30,
    };
    assert_eq!(place_initramfs(&config).unwrap(), GuestAddress(layout::HOLE_START.0 - 0x2000));
}

#[test]
fn initramfs_fits_up_to_the_kernels_end() {
    let end = 64 * MIB - 0x4000;
    let (_directory, kernel) = kernel(&TestKernel::new(vec![
        (load_segment(ADDRESS, end - ADDRESS), CODE.to_vec()),
        (notes(), pvh_note(ADDRESS)),
    ]));
    let command_line = CommandLine::new();
    let place = |initramfs: &[u8]| {
        place_initramfs(&BootConfig {
            kernel: &kernel,
            initramfs,
            command_line: &command_line,
            description: HardwareDescription::CommandLine,
            devices: &[],
            cpus: 1,
            memory_bytes: 64 * MIB,
        })
    };
    assert_eq!(place(&[0; 0x4000]).unwrap(), GuestAddress(end));
    let error = place(&[0; 0x4001]).unwrap_err();
    assert!(matches!(error, Error::InitramfsTooLarge { kernel_end, .. } if kernel_end == end), "{error:?}");
}

#[test]
fn check_rejects_numbers_out_of_range_and_a_large_kernel() {
    let (_directory, kernel) =
        kernel(&TestKernel::new(vec![(load_segment(ADDRESS, 100 * MIB), CODE.to_vec()), (notes(), pvh_note(ADDRESS))]));
    let command_line = CommandLine::new();
    let check = |cpus, memory_bytes| {
        check(&BootConfig {
            kernel: &kernel,
            initramfs: &[],
            command_line: &command_line,
            description: HardwareDescription::CommandLine,
            devices: &[],
            cpus,
            memory_bytes,
        })
    };
    assert!(check(32, 128 * MIB).is_ok());
    assert!(matches!(check(0, 128 * MIB), Err(Error::Cpus(0))));
    assert!(matches!(check(33, 128 * MIB), Err(Error::Cpus(33))));
    assert!(matches!(check(1, u64::MAX), Err(Error::Memory(MemorySizeError::TooLarge(_)))));
    let error = check(1, 64 * MIB).unwrap_err();
    assert!(matches!(&error, Error::Kernel(it) if matches!(it.problem, KernelProblem::TooLarge { .. })), "{error:?}");
}

#[test]
fn memory_smaller_than_configured_is_an_error() {
    let (_directory, kernel) = kernel(&TestKernel::valid());
    let command_line = CommandLine::new();
    let config = BootConfig {
        kernel: &kernel,
        initramfs: &[1],
        command_line: &command_line,
        description: HardwareDescription::CommandLine,
        devices: &[],
        cpus: 1,
        memory_bytes: 128 * MIB,
    };
    let error = load(&memory(64 * MIB), &config).unwrap_err();
    assert!(matches!(error, Error::Write { what: "initramfs", .. }), "{error:?}");
}
