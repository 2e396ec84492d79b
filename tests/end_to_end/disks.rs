// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Disks that the user brings: `--disk` and `--rootfs`.

use coracle_tests::{Case, Place, case, image};
use rustix::fs::{FlockOperation, fcntl_lock};
use std::fs::{self, OpenOptions};
use std::path::Path;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Smoke, what_is_written_to_a_disk_is_in_its_file),
        case!(Full, a_read_only_disk_takes_no_writes),
        case!(Quick[Kvm], a_disk_of_odd_size_is_refused),
        case!(Full, two_readers_share_a_read_only_disk),
        case!(Quick[Kvm], a_disk_that_another_holds_is_refused),
        case!(Quick, the_same_file_as_two_disks_is_refused_if_one_writes),
        case!(Quick, a_disk_that_is_not_there_is_refused),
        case!(Quick[Kvm], a_root_disk_of_odd_size_is_refused),
        case!(Quick[Kvm], an_empty_root_disk_is_refused),
    ]
}

fn disk(path: &Path, more: &str) -> String {
    format!("path={}{more}", path.display())
}

fn what_is_written_to_a_disk_is_in_its_file() {
    let place = Place::new();
    let path = place.write("data.img", vec![0; 1 << 20]);
    let script = "d=/dev/$(grep -l proof /sys/block/vd*/serial | cut -d/ -f4); \
                  mknod /tmp/d b $(cat /sys/block/${d#/dev/}/dev | tr : ' ') && \
                  echo written inside | dd of=/tmp/d bs=512 seek=8 conv=notrunc,fsync 2>/dev/null && \
                  dd if=/tmp/d bs=512 skip=8 count=1 2>/dev/null | head -1";
    let option = disk(&path, ",serial=proof");
    let run = place.run(&["--disk", &option, &image("busybox"), "sh", "-c", script]);
    run.assert_status(0).assert_stdout("written inside\n");
    let contents = fs::read(&path).expect("the file is still there");
    assert_eq!(&contents[4096..4111], b"written inside\n");
    assert_eq!(contents.len(), 1 << 20, "its size has not changed");
}

fn a_read_only_disk_takes_no_writes() {
    let place = Place::new();
    let before = vec![7; 64 << 10];
    let path = place.write("data.img", &before);
    let script = "n=$(grep -l proof /sys/block/vd*/serial | cut -d/ -f4); cat /sys/block/$n/ro; \
                  mknod /tmp/d b $(cat /sys/block/$n/dev | tr : ' '); \
                  dd if=/dev/zero of=/tmp/d bs=512 count=1 conv=fsync 2>/dev/null && echo wrote";
    let run = place.run(&["--disk", &disk(&path, ",ro,serial=proof"), &image("busybox"), "sh", "-c", script]);
    run.assert_stdout("1\n");
    assert_eq!(fs::read(&path).expect("the file is still there"), before);
}

fn a_disk_of_odd_size_is_refused() {
    let place = Place::new();
    let path = place.write("data.img", vec![0; 10 * 512 + 100]);
    let run = place.run(&["--disk", &disk(&path, ",ro"), &image("busybox"), "true"]);
    run.assert_status(125).assert_one_line_naming(&["data.img", "5220 bytes", "512"]);
}

fn two_readers_share_a_read_only_disk() {
    let place = Place::new();
    let path = place.write("data.img", vec![0; 64 << 10]);
    let option = disk(&path, ",ro");
    let arguments = ["--disk", &option, &image("busybox"), "echo", "read"];
    let (one, other) = (place.start(&arguments), place.start(&arguments));
    one.finish().assert_status(0);
    other.finish().assert_status(0);
}

fn a_disk_that_another_holds_is_refused() {
    let place = Place::new();
    let path = place.write("data.img", vec![0; 64 << 10]);
    let holder = OpenOptions::new().read(true).write(true).open(&path).expect("just written");
    // A lock of this process conflicts with one on coracle's open file description, as another coracle's does.
    fcntl_lock(&holder, FlockOperation::NonBlockingLockExclusive).expect("nobody else has it");
    let run = place.run(&["--disk", &disk(&path, ""), &image("busybox"), "true"]);
    run.assert_status(125).assert_one_line_naming(&["data.img", "lock"]);
}

fn the_same_file_as_two_disks_is_refused_if_one_writes() {
    let place = Place::new();
    let path = place.write("data.img", vec![0; 64 << 10]);
    let (writer, reader) = (disk(&path, ""), disk(&path, ",ro"));
    let run = place.run(&["--disk", &writer, "--disk", &reader, "oci:/nowhere", "true"]);
    run.assert_status(125).assert_reason("config-error").assert_one_line_naming(&["data.img"]);
}

fn a_disk_that_is_not_there_is_refused() {
    let place = Place::new();
    let run = place.run(&["--disk", "path=/nowhere/data.img", &image("busybox"), "true"]);
    run.assert_status(125).assert_one_line_naming(&["/nowhere/data.img"]);
}

fn a_root_disk_of_odd_size_is_refused() {
    let place = Place::new();
    let path = place.write("root.ext4", vec![0; (16 << 10) + 77]);
    let run = place.run(&["--rootfs", &path.display().to_string(), "/bin/true"]);
    run.assert_status(125).assert_one_line_naming(&["root.ext4", "16461 bytes", "512"]);
}

fn an_empty_root_disk_is_refused() {
    let place = Place::new();
    let path = place.write("root.img", b"");
    let run = place.run(&["--rootfs", &path.display().to_string(), "/bin/true"]);
    run.assert_status(125).assert_one_line_naming(&["root.img"]);
}
