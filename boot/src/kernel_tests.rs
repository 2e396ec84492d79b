// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Files that are no kernels, and kernels that change after they were opened.

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
fn a_kernel_is_loaded_to_where_it_was_linked() {
    let (_folder, path) = file_with(&TestKernel::sound().bytes());
    let memory = memory();
    open(&path).unwrap().load(&memory).unwrap();
    let mut loaded = [0xff; CODE.len() + 8];
    memory.read_slice(&mut loaded, GuestAddress(ADDRESS)).unwrap();
    assert_eq!(loaded[..CODE.len()], CODE);
    assert_eq!(loaded[CODE.len()..], [0; 8], "what follows the content is zero");
}

#[test]
fn every_segment_is_loaded_in_whichever_order_the_file_has_them() {
    let second = (load(ADDRESS + 0x10_0000, 0x1000), vec![2; 300]);
    let empty = (load(ADDRESS + 0x20_0000, 0x1000), vec![]);
    let first = (load(ADDRESS, 0x1000), CODE.to_vec());
    let (_folder, path) = file_with(&TestKernel::of(vec![second, empty, first, (notes(), pvh_note(ADDRESS))]).bytes());
    let memory = memory();
    open(&path).unwrap().load(&memory).unwrap();
    assert_eq!(memory.read_obj::<[u8; 16]>(GuestAddress(ADDRESS)).unwrap(), CODE);
    assert_eq!(memory.read_obj::<[u8; 32]>(GuestAddress(ADDRESS + 0x10_0000 + 268)).unwrap(), [2; 32]);
    assert_eq!(memory.read_obj::<[u8; 32]>(GuestAddress(ADDRESS + 0x10_0000 + 300)).unwrap(), [0; 32]);
}

#[test]
fn a_kernel_can_be_loaded_again_into_another_memory() {
    let (_folder, path) = file_with(&TestKernel::sound().bytes());
    let kernel = open(&path).unwrap();
    for _ in 0..2 {
        let memory = memory();
        kernel.load(&memory).unwrap();
        assert_eq!(memory.read_obj::<[u8; 16]>(GuestAddress(ADDRESS)).unwrap(), CODE);
    }
}

#[test]
fn a_file_that_shrinks_after_it_was_opened_is_an_error() {
    let (_folder, path) = file_with(&TestKernel::sound().bytes());
    let kernel = open(&path).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(64).unwrap();
    let error = kernel.load(&memory()).unwrap_err();
    assert!(matches!(error.problem, KernelProblem::Load(_)), "{error:?}");
}

#[test]
fn headers_that_change_after_they_were_checked_are_not_read_again() {
    let sound = TestKernel::sound().bytes();
    let (_folder, path) = file_with(&sound);
    let kernel = open(&path).unwrap();
    let mut moved = TestKernel::sound();
    moved.segments[0].0.physical_address = layout::START_INFO.0.into();
    File::options().write(true).open(&path).unwrap().write_all_at(&moved.bytes(), 0).unwrap();
    let memory = memory();
    kernel.load(&memory).unwrap();
    assert_eq!(memory.read_obj::<[u8; 16]>(layout::START_INFO).unwrap(), [0; 16]);
    assert_eq!(memory.read_obj::<[u8; 16]>(GuestAddress(ADDRESS)).unwrap(), CODE);
}

#[test]
fn a_file_that_is_replaced_after_it_was_opened_is_loaded_as_it_was() {
    let (directory, path) = file_with(&TestKernel::sound().bytes());
    let kernel = open(&path).unwrap();
    let other = directory.path().join("other");
    std::fs::write(&other, b"no kernel").unwrap();
    std::fs::rename(&other, &path).unwrap();
    let memory = memory();
    kernel.load(&memory).unwrap();
    assert_eq!(memory.read_obj::<[u8; 16]>(GuestAddress(ADDRESS)).unwrap(), CODE);
}

#[test]
fn paths_that_are_no_files_are_refused_without_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let circle = directory.path().join("circle");
    symlink(&circle, &circle).unwrap();
    let missing = directory.path().join("missing");

    let problem = |path: &Path| open(path).unwrap_err().problem;
    assert!(matches!(problem(&pipe), KernelProblem::NotAFile("a pipe")));
    assert!(matches!(problem(directory.path()), KernelProblem::NotAFile("a directory")));
    assert!(matches!(problem(Path::new("/dev/zero")), KernelProblem::NotAFile("a device")));
    assert!(matches!(problem(Path::new("/proc/self/mem")), KernelProblem::Read(_)));
    assert!(matches!(problem(&circle), KernelProblem::Open(_)));
    assert!(matches!(problem(&missing), KernelProblem::Open(error) if error.kind() == io::ErrorKind::NotFound));
    assert!(matches!(problem(Path::new("/nul\0byte")), KernelProblem::Open(_)));
}

#[test]
fn a_symbolic_link_to_a_kernel_is_followed() {
    let (directory, path) = file_with(&TestKernel::sound().bytes());
    let link = directory.path().join("link");
    symlink(&path, &link).unwrap();
    assert!(open(&link).is_ok());
}

#[test]
fn a_sparse_file_of_a_tebibyte_is_refused_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sparse");
    let mut kernel = TestKernel::sound();
    kernel.segments[1].0.file_size = (1 << 39).into();
    let mut file = File::create(&path).unwrap();
    file.write_all(&kernel.bytes()).unwrap();
    file.set_len(1 << 40).unwrap();
    let start = Instant::now();
    assert!(matches!(open(&path).unwrap_err().problem, KernelProblem::NotesSize(_)));
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[test]
fn a_problem_is_one_line_that_names_the_file() {
    let mut arm64 = vec![0; 0x400];
    arm64[0x38..0x3c].copy_from_slice(b"ARM\x64");
    let (_folder, path) = file_with(&arm64);
    let error = open(&path).unwrap_err();
    let message = error.to_string();
    assert!(message.starts_with(&format!("kernel {} is an arm64 kernel; ", path.display())), "{message}");
    assert!(error.source().is_none() && !message.contains('\n'));
}

#[test]
fn the_kernel_in_a_bzimage_is_unpacked_and_loaded() {
    for compression in [Compression::Gzip, Compression::Xz, Compression::Zstd] {
        let (_folder, path) = file_with(&bzimage(&pack(compression, &TestKernel::sound().bytes())));
        let kernel = open(&path).unwrap();
        assert!(kernel.is_bzimage());
        let memory = memory();
        kernel.load(&memory).unwrap();
        assert_eq!(memory.read_obj::<[u8; 16]>(GuestAddress(ADDRESS)).unwrap(), CODE, "{compression:?}");
    }
}

#[test]
fn a_bzimage_with_anything_else_in_it_is_refused_by_name() {
    let elf = TestKernel::sound().bytes();
    let packed = pack(Compression::Zstd, &elf);
    let mut big_endian = TestKernel::sound();
    big_endian.header.ident[5] = 2;
    let table = [
        (b"\x02\x21\x4c\x18".to_vec(), "compressed with lz4"),
        (elf.clone(), "compressed with something unknown"),
        (packed[..packed.len() - 1].to_vec(), "cannot be unpacked: "),
        (pack(Compression::Gzip, b"#!/bin/sh"), "whose kernel is a script"),
        (pack(Compression::Xz, &big_endian.bytes()), "whose kernel is a big-endian ELF file"),
    ];
    for (payload, expected) in table {
        let (_folder, path) = file_with(&bzimage(&payload));
        let error = open(&path).unwrap_err();
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        let message = format!("{error}{cause}");
        assert!(message.contains(expected) && message.contains("vmlinux"), "{message}");
    }
}

#[test]
fn what_was_unpacked_is_there_the_next_time_and_a_changed_file_is_unpacked_again() {
    let (directory, path) = file_with(&bzimage(&pack(Compression::Gzip, &TestKernel::sound().bytes())));
    let cache = KernelCache::new(Some(&directory.path().join("cache")));
    let entries = || std::fs::read_dir(directory.path().join("cache/kernels/v2")).unwrap().count();
    let heard = std::cell::RefCell::new(Vec::new());
    for _ in 0..2 {
        Kernel::open(&path, &cache, &|read, all| heard.borrow_mut().push((read, all))).unwrap();
        assert_eq!(entries(), 2, "the kernel and its features");
    }
    let heard = heard.into_inner();
    assert!(heard.is_sorted() && heard.last().is_some_and(|(read, all)| read == all), "{heard:?}");
    assert_eq!(
        heard.iter().filter(|(read, _)| *read == heard[0].0).count(),
        1,
        "the second time there is nothing to do"
    );
    let mut other = TestKernel::sound();
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
fn a_damaged_or_unusable_cache_costs_only_time() {
    let (directory, path) = file_with(&bzimage(&pack(Compression::Gzip, &TestKernel::sound().bytes())));
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
fn a_kernel_is_told_on_the_command_line_only_if_it_listens_there() {
    let described = |strings: &[u8]| {
        let mut kernel = TestKernel::sound();
        kernel.segments[0].1.extend(strings);
        let (_folder, path) = file_with(&kernel.bytes());
        open(&path).unwrap().description()
    };
    assert_eq!(described(b"virtio_mmio.device\0MPTABLE: "), Description::CommandLine);
    assert_eq!(described(b"virtio_mmio.device\0MPTABLE: LNRO0005\0"), Description::CommandLine);
    assert_eq!(described(b"virtio_mmio.device\0LNRO0005\0"), Description::Acpi, "it would not read the MP table");
    assert_eq!(described(b"virtio_mmio.device\0"), Description::CommandLine);
    assert_eq!(described(b"MPTABLE: LNRO0005\0"), Description::Acpi);
    assert_eq!(described(b""), Description::Acpi);
}

#[test]
fn the_reason_of_the_host_is_the_next_link_of_the_chain() {
    let error = open(Path::new("/nonexistent/vmlinux")).unwrap_err();
    assert_eq!(error.to_string(), "kernel /nonexistent/vmlinux cannot be opened");
    assert!(error.source().unwrap().to_string().starts_with("No such file or directory"));
}
