// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Disks of the user: `--disk` and `--rootfs`.

use coracle_tests::{Case, Finished, TestDir, case, image};
use rustix::fs::{FlockOperation, fcntl_lock};
use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Smoke, disk_file_has_what_the_guest_wrote),
        case!(Full, read_only_disk_takes_no_writes),
        case!(Quick[Kvm], disk_of_odd_size_is_rejected),
        case!(Full, read_only_disk_is_shared_by_two_machines),
        case!(Quick[Kvm], disk_locked_by_another_process_is_rejected),
        case!(Quick, file_given_as_two_disks_is_rejected_if_one_writes),
        case!(Quick, missing_disk_is_rejected),
        case!(Full, limits_and_sizes_change_while_the_machine_runs),
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

fn limits_and_sizes_change_while_the_machine_runs() {
    let dir = TestDir::new().keeping_machines();
    let path = dir.write("data.img", vec![7; 4 << 20]);
    let grows = dir.write("grows.img", vec![7; 1 << 20]);
    let script = "for d in data grows; do \
                  n=$(grep -l $d /sys/block/vd*/serial | cut -d/ -f4); mknod /tmp/$d b $(cat /sys/block/$n/dev | tr : ' '); \
                  ln -s /sys/block/$n/size /tmp/$d.size; done; echo up; exec sleep 1000";
    let (option, second) = (disk(&path, ",ro,serial=data,read-bps=64m"), disk(&grows, ",serial=grows"));
    let options = ["--name", "limited", "--disk", &option, "--disk", &second];
    let mut run = dir.start(&[&options[..], &[image("busybox").as_str(), "sh", "-c", script]].concat());
    run.wait_for_stdout("up\n");
    let limits = || {
        let mut socket = UnixStream::connect(dir.run_directory().join("limited/control.sock")).expect("it listens");
        let request = "POST /v1/limits HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        socket.write_all(request.as_bytes()).expect("it reads");
        let mut response = String::new();
        socket.read_to_string(&mut response).expect("it answers");
        let (_, body) = response.split_once("\r\n\r\n").expect("a head and a body");
        serde_json::from_str::<serde_json::Value>(body).expect("it is JSON")
    };
    let data = || limits()["disks"]["data"].clone();
    let null = serde_json::Value::Null;
    let limit = |read_bps: serde_json::Value, write_iops: serde_json::Value| serde_json::json!({ "read_bps": read_bps, "read_iops": null, "write_bps": null, "write_iops": write_iops });
    assert_eq!(data(), limit((64 << 20).into(), null.clone()));

    let update = |change: &str| dir.verb("update", &["--disk", change, "limited"]).finish();
    update("data,read-bps=256k,write-iops=7").assert_status(0).assert_stdout("limited\n");
    assert_eq!(data(), limit((256 << 10).into(), 7.into()));
    let begun = Instant::now();
    let read = dir.verb("exec", &["limited", "dd", "if=/tmp/data", "of=/dev/null", "bs=64k", "count=16"]).finish();
    read.assert_status(0);
    // A MiB at a quarter of one for each second, less what passes at once.
    assert!(begun.elapsed() > Duration::from_secs(3), "1 MiB took {:?}", begun.elapsed());

    update("nosuch,read-bps=1").assert_status(125).assert_one_line_naming(&["nosuch", "root", "data"]);
    update("data,read-bps=0").assert_status(0);
    assert_eq!(data(), limit(null.clone(), 7.into()));
    disk_grows(&dir, &grows);
    dir.verb("kill", &["limited"]).finish().assert_status(0);
    run.finish().assert_status(137);
    resize(&dir, &["grows"]).assert_status(125).assert_one_line_naming(&["limited", "not running"]);
}

/// `coracle disk resize limited`.
fn resize(dir: &TestDir, words: &[&str]) -> Finished {
    let run_directory = dir.run_directory().display().to_string();
    dir.invocation(&[&["resize", "--run-dir", &run_directory, "limited"], words].concat()).verb("disk").finish()
}

fn disk_grows(dir: &TestDir, path: &Path) {
    let guest = |script: &str| dir.verb("exec", &["limited", "timeout", "60", "sh", "-c", script]).finish();
    // The driver reads the capacity on a thread of its own, after the interrupt.
    let has_size = |sectors: u64| {
        guest(&format!("until [ $(cat /tmp/grows.size) = {sectors} ]; do :; done; cat /tmp/grows.size"))
            .assert_status(0)
            .assert_stdout(&format!("{sectors}\n"));
    };
    has_size(2048);
    resize(dir, &["grows", "4m"]).assert_status(0).assert_stdout("4194304\n");
    has_size(8192);
    let write = "echo beyond | dd of=/tmp/grows bs=512 seek=8191 conv=notrunc,fsync";
    guest(write).assert_status(0);
    let contents = fs::read(path).expect("the file is still there");
    assert_eq!((contents.len(), &contents[8191 * 512..][..7]), (4 << 20, &b"beyond\n"[..]));

    // Space that is added to the file is there after a word to the machine.
    let file = OpenOptions::new().write(true).open(path).expect("the file is still there");
    file.set_len(6 << 20).expect("the disk has space");
    has_size(8192);
    resize(dir, &["grows"]).assert_status(0).assert_stdout("6291456\n");
    has_size(12288);

    for (words, why) in [
        (&["grows", "5m"][..], &["limited", "disk grows", "5242880", "smaller"][..]),
        (&["grows", "6291457"], &["6291457", "512"]),
        (&["data"], &["disk data", "read-only"]),
        (&["root", "8g"], &["disk root", "--disk"]),
        (&["scratch", "16g"], &["disk scratch", "--disk"]),
        (&["nosuch"], &["nosuch", "root, scratch, data, grows"]),
        (&["grows", "much"], &["much"]),
    ] {
        resize(dir, words).assert_status(125).assert_one_line_naming(why);
    }
    file.set_len(5 << 20).expect("a file can be cut");
    resize(dir, &["grows"]).assert_status(125).assert_one_line_naming(&["disk grows", "5242880", "6291456"]);
    has_size(12288);
}
