// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Files that are not kernels, and kernels that change after they were opened.

use super::*;
use crate::bzimage::tests::bzimage;
use crate::compression::tests::pack;
use crate::layout;
use crate::test_kernel::{ADDRESS, CODE, TestKernel, load, notes, pvh_note};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, symlink};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use vm_memory::{Bytes as _, GuestAddress};

const MEMORY: u64 = 64 << 20;

fn memory() -> GuestMemory {
    GuestMemory::from_ranges(&layout::memory_regions(MEMORY)).unwrap()
}

fn open(path: &Path) -> Result<Kernel, KernelError> {
    Kernel::open(path, &KernelCache::default(), &|_, _| {})
}

fn file_with(bytes: &[u8]) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("vmlinux");
    std::fs::write(&path, bytes).unwrap();
    (directory, path)
}

#[test]
fn kernel_is_loaded_to_its_link_address() {
    let (_directory, path) = file_with(&TestKernel::valid().bytes());
    let memory = memory();
    open(&path).unwrap().load(&memory).unwrap();
    let mut loaded = [0xff; CODE.len() + 8];
    memory.read_slice(&mut loaded, GuestAddress(ADDRESS)).unwrap();
    assert_eq!(loaded[..CODE.len()], CODE);
    assert_eq!(loaded[CODE.len()..], [0; 8], "what follows the content is zero");
}

#[test]
fn segments_are_loaded_in_any_order() {
    let second = (load(ADDRESS + 0x10_0000, 0x1000), vec![2; 300]);
    let empty = (load(ADDRESS + 0x20_0000, 0x1000), vec![]);
    let first = (load(ADDRESS, 0x1000), CODE.to_vec());
    let (_directory, path) =
        file_with(&TestKernel::new(vec![second, empty, first, (notes(), pvh_note(ADDRESS))]).bytes());
    let memory = memory();
    open(&path).unwrap().load(&memory).unwrap();
    assert_eq!(memory.read_obj::<[u8; 16]>(GuestAddress(ADDRESS)).unwrap(), CODE);
    assert_eq!(memory.read_obj::<[u8; 32]>(GuestAddress(ADDRESS + 0x10_0000 + 268)).unwrap(), [2; 32]);
    assert_eq!(memory.read_obj::<[u8; 32]>(GuestAddress(ADDRESS + 0x10_0000 + 300)).unwrap(), [0; 32]);
}

#[test]
fn kernel_can_be_loaded_twice() {
    let (_directory, path) = file_with(&TestKernel::valid().bytes());
    let kernel = open(&path).unwrap();
    for _ in 0..2 {
        let memory = memory();
        kernel.load(&memory).unwrap();
        assert_eq!(memory.read_obj::<[u8; 16]>(GuestAddress(ADDRESS)).unwrap(), CODE);
    }
}

#[test]
fn file_that_shrinks_after_open_is_an_error() {
    let (_directory, path) = file_with(&TestKernel::valid().bytes());
    let kernel = open(&path).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(64).unwrap();
    let error = kernel.load(&memory()).unwrap_err();
    assert!(matches!(error.problem, KernelProblem::Load(_)), "{error:?}");
}

#[test]
fn headers_are_not_read_again_after_the_check() {
    let sound = TestKernel::valid().bytes();
    let (_directory, path) = file_with(&sound);
    let kernel = open(&path).unwrap();
    let mut moved = TestKernel::valid();
    moved.segments[0].0.physical_address = layout::START_INFO.0.into();
    File::options().write(true).open(&path).unwrap().write_all_at(&moved.bytes(), 0).unwrap();
    let memory = memory();
    kernel.load(&memory).unwrap();
    assert_eq!(memory.read_obj::<[u8; 16]>(layout::START_INFO).unwrap(), [0; 16]);
    assert_eq!(memory.read_obj::<[u8; 16]>(GuestAddress(ADDRESS)).unwrap(), CODE);
}

#[test]
fn file_replaced_after_open_does_not_matter() {
    let (directory, path) = file_with(&TestKernel::valid().bytes());
    let kernel = open(&path).unwrap();
    let other = directory.path().join("other");
    std::fs::write(&other, b"not a kernel").unwrap();
    std::fs::rename(&other, &path).unwrap();
    let memory = memory();
    kernel.load(&memory).unwrap();
    assert_eq!(memory.read_obj::<[u8; 16]>(GuestAddress(ADDRESS)).unwrap(), CODE);
}

#[test]
fn path_without_a_regular_file_is_rejected_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let cycle = directory.path().join("cycle");
    symlink(&cycle, &cycle).unwrap();
    let missing = directory.path().join("missing");

    let problem = |path: &Path| open(path).unwrap_err().problem;
    assert!(matches!(problem(&pipe), KernelProblem::NotAFile("a pipe")));
    assert!(matches!(problem(directory.path()), KernelProblem::NotAFile("a directory")));
    assert!(matches!(problem(Path::new("/dev/zero")), KernelProblem::NotAFile("a device")));
    assert!(matches!(problem(Path::new("/proc/self/mem")), KernelProblem::Read(_)));
    assert!(matches!(problem(&cycle), KernelProblem::Open(_)));
    assert!(matches!(problem(&missing), KernelProblem::Open(error) if error.kind() == io::ErrorKind::NotFound));
    assert!(matches!(problem(Path::new("/nul\0byte")), KernelProblem::Open(_)));
}

#[test]
fn symbolic_link_to_a_kernel_is_followed() {
    let (directory, path) = file_with(&TestKernel::valid().bytes());
    let link = directory.path().join("link");
    symlink(&path, &link).unwrap();
    assert!(open(&link).is_ok());
}

#[test]
fn sparse_file_of_1_tib_is_rejected_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sparse");
    let mut kernel = TestKernel::valid();
    kernel.segments[1].0.file_size = (1 << 39).into();
    let mut file = File::create(&path).unwrap();
    file.write_all(&kernel.bytes()).unwrap();
    file.set_len(1 << 40).unwrap();
    let start = Instant::now();
    assert!(matches!(open(&path).unwrap_err().problem, KernelProblem::NotesSize(_)));
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[test]
fn error_is_one_line_that_names_the_file() {
    let mut arm64 = vec![0; 0x400];
    arm64[0x38..0x3c].copy_from_slice(b"ARM\x64");
    let (_directory, path) = file_with(&arm64);
    let error = open(&path).unwrap_err();
    let message = error.to_string();
    assert!(message.starts_with(&format!("kernel {} is an arm64 kernel; ", path.display())), "{message}");
    assert!(error.source().is_none() && !message.contains('\n'));
}

#[test]
fn kernel_in_a_bzimage_is_unpacked_and_loaded() {
    for compression in [Compression::Gzip, Compression::Xz, Compression::Zstd] {
        let (_directory, path) = file_with(&bzimage(&pack(compression, &TestKernel::valid().bytes())));
        let kernel = open(&path).unwrap();
        assert!(kernel.is_bzimage());
        let memory = memory();
        kernel.load(&memory).unwrap();
        assert_eq!(memory.read_obj::<[u8; 16]>(GuestAddress(ADDRESS)).unwrap(), CODE, "{compression:?}");
    }
}

#[test]
fn bzimage_with_another_content_is_rejected_by_name() {
    let elf = TestKernel::valid().bytes();
    let packed = pack(Compression::Zstd, &elf);
    let mut big_endian = TestKernel::valid();
    big_endian.header.ident[5] = 2;
    let table = [
        (b"\x02\x21\x4c\x18".to_vec(), "compressed with lz4"),
        (elf.clone(), "compressed with an unknown format"),
        (packed[..packed.len() - 1].to_vec(), "cannot be unpacked: "),
        (pack(Compression::Gzip, b"#!/bin/sh"), "whose kernel is a script"),
        (pack(Compression::Xz, &big_endian.bytes()), "whose kernel is a big-endian ELF file"),
    ];
    for (payload, expected) in table {
        let (_directory, path) = file_with(&bzimage(&payload));
        let error = open(&path).unwrap_err();
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        let message = format!("{error}{cause}");
        assert!(message.contains(expected) && message.contains("vmlinux"), "{message}");
    }
}

#[test]
fn unpacked_kernel_is_cached_until_the_file_changes() {
    let (directory, path) = file_with(&bzimage(&pack(Compression::Gzip, &TestKernel::valid().bytes())));
    let cache = KernelCache::new(Some(&directory.path().join("cache")));
    let entries = || std::fs::read_dir(directory.path().join("cache/kernels/v2")).unwrap().count();
    let reported = std::cell::RefCell::new(Vec::new());
    for _ in 0..2 {
        Kernel::open(&path, &cache, &|read, all| reported.borrow_mut().push((read, all))).unwrap();
        assert_eq!(entries(), 2, "the kernel and its features");
    }
    let reported = reported.into_inner();
    assert!(reported.is_sorted() && reported.last().is_some_and(|(read, all)| read == all), "{reported:?}");
    assert_eq!(
        reported.iter().filter(|(read, _)| *read == reported[0].0).count(),
        1,
        "the second time nothing is unpacked"
    );
    let mut other = TestKernel::valid();
    other.segments[0].1 = b"0123456789abcdef LNRO0005\0".to_vec();
    std::fs::write(&path, bzimage(&pack(Compression::Gzip, &other.bytes()))).unwrap();
    let kernel = Kernel::open(&path, &cache, &|_, _| {}).unwrap();
    assert!(kernel.features().has(Feature::MmioByAcpi));
    assert_eq!(entries(), 4);
    let memory = memory();
    kernel.load(&memory).unwrap();
    assert_eq!(&memory.read_obj::<[u8; 16]>(GuestAddress(ADDRESS)).unwrap(), b"0123456789abcdef");
}

#[test]
fn damaged_or_unusable_cache_only_costs_time() {
    let (directory, path) = file_with(&bzimage(&pack(Compression::Gzip, &TestKernel::valid().bytes())));
    let cache = directory.path().join("cache");
    Kernel::open(&path, &KernelCache::new(Some(&cache)), &|_, _| {}).unwrap();
    for entry in std::fs::read_dir(cache.join("kernels/v2")).unwrap() {
        std::fs::write(entry.unwrap().path(), "nonsense").unwrap();
    }
    for cache in [cache.as_path(), Path::new("/dev/null"), Path::new("/proc/nowhere")] {
        let kernel = Kernel::open(&path, &KernelCache::new(Some(cache)), &|_, _| {}).unwrap();
        kernel.load(&memory()).unwrap();
    }
}

#[test]
fn description_follows_the_features_of_the_kernel() {
    let described = |strings: &[u8]| {
        let mut kernel = TestKernel::valid();
        kernel.segments[0].1.extend(strings);
        let (_directory, path) = file_with(&kernel.bytes());
        open(&path).unwrap().description()
    };
    assert_eq!(described(b"virtio_mmio.device\0MPTABLE: "), HardwareDescription::CommandLine);
    assert_eq!(described(b"virtio_mmio.device\0MPTABLE: LNRO0005\0"), HardwareDescription::CommandLine);
    assert_eq!(
        described(b"virtio_mmio.device\0LNRO0005\0"),
        HardwareDescription::Acpi,
        "it would not read the MP table"
    );
    assert_eq!(described(b"virtio_mmio.device\0"), HardwareDescription::CommandLine);
    assert_eq!(described(b"MPTABLE: LNRO0005\0"), HardwareDescription::Acpi);
    assert_eq!(described(b""), HardwareDescription::Acpi);
}

#[test]
fn io_error_is_the_source_of_the_kernel_error() {
    let error = open(Path::new("/nonexistent/vmlinux")).unwrap_err();
    assert_eq!(error.to_string(), "kernel /nonexistent/vmlinux cannot be opened");
    assert!(error.source().unwrap().to_string().starts_with("No such file or directory"));
}
