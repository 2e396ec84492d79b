// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Disks of the user: `--disk` and `--rootfs`.

use coracle_tests::{Case, TestDir, case, image};
use rustix::fs::{FlockOperation, fcntl_lock};
use std::fs::{self, OpenOptions};
use std::path::Path;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Smoke, disk_file_has_what_the_guest_wrote),
        case!(Full, read_only_disk_takes_no_writes),
        case!(Quick[Kvm], disk_of_odd_size_is_rejected),
        case!(Full, read_only_disk_is_shared_by_two_machines),
        case!(Quick[Kvm], disk_locked_by_another_process_is_rejected),
        case!(Quick, file_given_as_two_disks_is_rejected_if_one_writes),
        case!(Quick, missing_disk_is_rejected),
        case!(Quick[Kvm], root_disk_of_odd_size_is_rejected),
        case!(Quick[Kvm], empty_root_disk_is_rejected),
    ]
}

fn disk(path: &Path, more: &str) -> String {
    format!("path={}{more}", path.display())
}

fn disk_file_has_what_the_guest_wrote() {
    let dir = TestDir::new();
    let path = dir.write("data.img", vec![0; 1 << 20]);
    let script = "d=/dev/$(grep -l proof /sys/block/vd*/serial | cut -d/ -f4); \
                  mknod /tmp/d b $(cat /sys/block/${d#/dev/}/dev | tr : ' ') && \
                  echo written inside | dd of=/tmp/d bs=512 seek=8 conv=notrunc,fsync 2>/dev/null && \
                  dd if=/tmp/d bs=512 skip=8 count=1 2>/dev/null | head -1";
    let option = disk(&path, ",serial=proof");
    let run = dir.run(&["--disk", &option, &image("busybox"), "sh", "-c", script]);
    run.assert_status(0).assert_stdout("written inside\n");
    let contents = fs::read(&path).expect("the file is still there");
    assert_eq!(&contents[4096..4111], b"written inside\n");
    assert_eq!(contents.len(), 1 << 20, "its size has not changed");
}

fn read_only_disk_takes_no_writes() {
    let dir = TestDir::new();
    let before = vec![7; 64 << 10];
    let path = dir.write("data.img", &before);
    let script = "n=$(grep -l proof /sys/block/vd*/serial | cut -d/ -f4); cat /sys/block/$n/ro; \
                  mknod /tmp/d b $(cat /sys/block/$n/dev | tr : ' '); \
                  dd if=/dev/zero of=/tmp/d bs=512 count=1 conv=fsync 2>/dev/null && echo wrote";
    let run = dir.run(&["--disk", &disk(&path, ",ro,serial=proof"), &image("busybox"), "sh", "-c", script]);
    run.assert_stdout("1\n");
    assert_eq!(fs::read(&path).expect("the file is still there"), before);
}

fn disk_of_odd_size_is_rejected() {
    let dir = TestDir::new();
    let path = dir.write("data.img", vec![0; 10 * 512 + 100]);
    let run = dir.run(&["--disk", &disk(&path, ",ro"), &image("busybox"), "true"]);
    run.assert_status(125).assert_one_line_naming(&["data.img", "5220 bytes", "512"]);
}

fn read_only_disk_is_shared_by_two_machines() {
    let dir = TestDir::new();
    let path = dir.write("data.img", vec![0; 64 << 10]);
    let option = disk(&path, ",ro");
    let arguments = ["--disk", &option, &image("busybox"), "echo", "read"];
    let (one, other) = (dir.start(&arguments), dir.start(&arguments));
    one.finish().assert_status(0);
    other.finish().assert_status(0);
}

fn disk_locked_by_another_process_is_rejected() {
    let dir = TestDir::new();
    let path = dir.write("data.img", vec![0; 64 << 10]);
    let holder = OpenOptions::new().read(true).write(true).open(&path).expect("just written");
    // A lock of this process conflicts with coracle's lock on its open file description, like that of another coracle.
    fcntl_lock(&holder, FlockOperation::NonBlockingLockExclusive).expect("no other process has it");
    let run = dir.run(&["--disk", &disk(&path, ""), &image("busybox"), "true"]);
    run.assert_status(125).assert_one_line_naming(&["data.img", "in use"]);
}

fn file_given_as_two_disks_is_rejected_if_one_writes() {
    let dir = TestDir::new();
    let path = dir.write("data.img", vec![0; 64 << 10]);
    let (writer, reader) = (disk(&path, ""), disk(&path, ",ro"));
    let run = dir.run(&["--disk", &writer, "--disk", &reader, "oci:/nowhere", "true"]);
    run.assert_status(125).assert_reason("config-error").assert_one_line_naming(&["data.img"]);
}

fn missing_disk_is_rejected() {
    let dir = TestDir::new();
    let run = dir.run(&["--disk", "path=/nowhere/data.img", &image("busybox"), "true"]);
    run.assert_status(125).assert_one_line_naming(&["/nowhere/data.img"]);
}

fn root_disk_of_odd_size_is_rejected() {
    let dir = TestDir::new();
    let path = dir.write("root.ext4", vec![0; (16 << 10) + 77]);
    let run = dir.run(&["--rootfs", &path.display().to_string(), "/bin/true"]);
    run.assert_status(125).assert_one_line_naming(&["root.ext4", "16461 bytes", "512"]);
}

fn empty_root_disk_is_rejected() {
    let dir = TestDir::new();
    let path = dir.write("root.img", b"");
    let run = dir.run(&["--rootfs", &path.display().to_string(), "/bin/true"]);
    run.assert_status(125).assert_one_line_naming(&["root.img"]);
}
