// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Kernel images that cannot be booted are rejected by name, before a machine is built.

use coracle_tests::{Case, Elf, TestDir, case, image};
use std::path::Path;
use std::time::Duration;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Quick[Kvm], files_other_than_kernels_are_rejected),
        case!(Quick[Kvm], kernels_with_one_wrong_field_are_rejected),
        case!(Quick[Kvm], kernel_too_big_for_the_memory_is_rejected_with_sizes),
        case!(Quick[Kvm], kernel_paths_other_than_files_are_rejected_at_once),
        case!(Quick[Kvm], kernel_command_lines_that_do_not_fit_are_rejected),
    ]
}

fn refuse(dir: &TestDir, kernel: &Path, more: &[&str], objects: &[&str]) {
    let path = kernel.display().to_string();
    let image = image("busybox");
    let arguments = [&["--kernel", &path][..], more, &[&image, "true"]].concat();
    let run = dir.invocation(&arguments).limit(Duration::from_secs(20)).finish();
    run.assert_status(125).assert_reason("kernel-error").assert_one_line_naming(objects);
}

fn files_other_than_kernels_are_rejected() {
    let dir = TestDir::new();
    let good = Elf::default().to_bytes();
    // The magic of the Linux boot protocol at 0x1f1 and 0x202; protocol 2.15, and a payload at 0x600.
    let mut bzimage = vec![0; 8192];
    bzimage[..2].copy_from_slice(b"MZ");
    bzimage[0x1f1] = 2;
    bzimage[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    bzimage[0x202..0x208].copy_from_slice(b"HdrS\x0f\x02");
    bzimage[0x24c..0x250].copy_from_slice(&(8192_u32 - 0x600).to_le_bytes());
    let with = |payload: &[u8]| {
        let mut bytes = bzimage.clone();
        bytes[0x600..0x600 + payload.len()].copy_from_slice(payload);
        bytes
    };
    let (lz4, damaged) = (with(b"\x02\x21\x4c\x18"), with(b"\x28\xb5\x2f\xfd\x04\x00"));
    let files: &[(&str, &[u8])] = &[
        ("empty", b""),
        ("one-byte", b"\x7f"),
        ("text", b"#!/bin/sh\necho not a kernel\n"),
        ("compressed", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"),
        ("bzImage-of-nothing", &bzimage),
        ("bzImage-lz4", &lz4),
        ("bzImage-damaged", &damaged),
        ("bzImage-cut-off", &damaged[..4000]),
        ("half-a-header", &good[..40]),
        ("no-program-headers", &good[..64]),
        ("half-a-program-header", &good[..100]),
        ("cut-in-the-note", &good[..good.len() - 6]),
    ];
    for (name, contents) in files {
        refuse(&dir, &dir.write(name, contents), &[], &[name]);
    }
    let run = dir.run(&["--kernel", &dir.file("bzImage-lz4").display().to_string(), &image("busybox"), "true"]);
    run.assert_one_line_naming(&["bzImage", "lz4", "zstd"]);
}

fn kernels_with_one_wrong_field_are_rejected() {
    let dir = TestDir::new();
    let kernels = [
        ("class-32", Elf { class: 1, ..Elf::default() }),
        ("big-endian", Elf { data: 2, ..Elf::default() }),
        ("arm64", Elf { machine: 183, ..Elf::default() }),
        ("i386", Elf { machine: 3, ..Elf::default() }),
        ("relocatable", Elf { kind: 1, ..Elf::default() }),
        ("no-note", Elf { pvh_entry: None, ..Elf::default() }),
        ("entry-0", Elf { pvh_entry: Some(0), ..Elf::default() }),
        ("entry-behind-the-segment", Elf { pvh_entry: Some(0x100_1000), ..Elf::default() }),
        ("entry-at-the-end", Elf { pvh_entry: Some(0xffff_ffff), ..Elf::default() }),
        ("segment-at-0", Elf { address: 0, pvh_entry: Some(0), ..Elf::default() }),
        ("segment-beyond-memory", Elf { address: 0x4000_0000, pvh_entry: Some(0x4000_0000), ..Elf::default() }),
        ("segment-wraps", Elf { memory_size: u64::MAX - 4096, ..Elf::default() }),
        ("overlap", Elf { more_segments: vec![(0x100_0800, 4096)], ..Elf::default() }),
        ("memory-below-file", Elf { memory_size: 1, ..Elf::default() }),
    ];
    for (name, kernel) in kernels {
        refuse(&dir, &dir.write(name, kernel.to_bytes()), &[], &[name]);
    }
}

fn kernel_too_big_for_the_memory_is_rejected_with_sizes() {
    let dir = TestDir::new();
    let kernel = Elf { memory_size: 100 << 20, ..Elf::default() };
    refuse(&dir, &dir.write("big", kernel.to_bytes()), &["-m", "64m"], &["big", "64"]);
}

fn kernel_paths_other_than_files_are_rejected_at_once() {
    let dir = TestDir::new();
    let link = dir.file("loop");
    std::os::unix::fs::symlink(&link, &link).expect("the test's directory is writable");
    let fifo = dir.file("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .expect("writable");
    for path in [Path::new("/nowhere/vmlinux"), Path::new("/dev/zero"), dir.path(), &link, &fifo] {
        refuse(&dir, path, &[], &[&path.display().to_string()]);
    }
    // Sparse, and larger than any memory: reading it would take longer than the limit.
    let sparse = dir.write("sparse", Elf::default().to_bytes());
    let file = std::fs::OpenOptions::new().write(true).open(&sparse).expect("just written");
    file.set_len(1 << 40).expect("the file system has sparse files");
    let run = dir.invocation(&["--kernel", &sparse.display().to_string(), "oci:/nowhere", "true"]);
    run.limit(Duration::from_secs(60)).finish().assert_status(125);
}

fn kernel_command_lines_that_do_not_fit_are_rejected() {
    let dir = TestDir::new();
    let long = "x".repeat(5000);
    for (append, object) in [(long.as_str(), "append"), ("two\nlines", "append"), ("caf\u{e9}", "append")] {
        let run = dir.run(&["--append", append, &image("busybox"), "true"]);
        run.assert_status(125).assert_one_line_naming(&[object]);
    }
}
