// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--context`: disks made by the tools that clouds use, and files that are no context. What a context says is applied in unit tests.

use coracle_tests::{Case, TestDir, case, image, iso_image};
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Smoke[Vfat], context_of_a_vfat_disk_reaches_the_workload),
        case!(Quick[Vfat], context_is_read_from_each_kind_of_vfat_disk),
        case!(Quick[Vfat], context_on_a_damaged_vfat_disk_is_rejected),
        case!(Quick, context_that_is_none_is_rejected),
    ]
}

fn done(command: &mut Command) {
    let output = command.output().expect("it is installed");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A disk with these files, and their directories. FAT12, 16 or 32 by `bits`; clusters of one sector.
fn vfat(dir: &TestDir, bits: &str, files: &[(&str, &str)]) -> PathBuf {
    let disk = dir.file(&format!("fat{bits}.img"));
    let kib = if bits == "12" { "1440" } else { "34000" };
    let sectors = if bits == "16" { "2" } else { "1" };
    done(
        Command::new("/usr/sbin/mkfs.vfat").args(["-F", bits, "-s", sectors, "-n", "CIDATA", "-C"]).arg(&disk).arg(kib),
    );
    let mtools = |program: &str| {
        let mut command = Command::new(program);
        command.arg("-i").arg(&disk);
        command
    };
    let mut made: Vec<&Path> = Vec::new();
    for (name, content) in files {
        let parents: Vec<_> = Path::new(name).ancestors().skip(1).filter(|path| path.parent().is_some()).collect();
        for parent in parents.into_iter().rev() {
            if !made.contains(&parent) {
                done(mtools("mmd").arg(format!("::/{}", parent.display())));
                made.push(parent);
            }
        }
        let file = dir.write("content", content);
        done(mtools("mcopy").arg(file).arg(format!("::/{name}")));
    }
    disk
}

fn context(path: &Path, words: &[&str]) -> Vec<String> {
    let options = ["--network", "none", "--context", &path.display().to_string(), &image("busybox")];
    options.iter().chain(words).map(|&word| word.to_owned()).collect()
}

fn context_of_a_vfat_disk_reaches_the_workload() {
    let dir = TestDir::new();
    let user_data = format!("#!/bin/sh\n# {}\necho started on $(hostname)\n", "x".repeat(5000));
    let files = [
        ("meta-data", "instance-id: i-7\nlocal-hostname: from-vfat\npublic-keys: [ssh-ed25519 A me]\n"),
        ("user-data", &*user_data),
    ];
    let disk = vfat(&dir, "32", &files);
    let run = dir.run(&context(&disk, &["cat", "/root/.ssh/authorized_keys"]));
    run.assert_status(0).assert_stdout("started on from-vfat\nssh-ed25519 A me\n");
}

/// A script for another interpreter than a shell is rejected with that one's name: it was read, and no machine starts.
fn context_is_read_from_each_kind_of_vfat_disk() {
    let dir = TestDir::new();
    for bits in ["12", "16", "32"] {
        // The last bytes of a file that is longer than a cluster decide about it.
        let interpreter = format!("/opt/fat{bits}");
        let user_data = format!("#!{interpreter}\n{}\n", "x".repeat(3000));
        let mut files: Vec<(String, &str)> =
            (0..40).map(|number| (format!("a long name that fills the directory {number}"), "")).collect();
        files.extend([
            ("openstack/latest/meta_data.json".to_owned(), r#"{"hostname": "web"}"#),
            ("openstack/latest/user_data".to_owned(), &*user_data),
        ]);
        let files: Vec<_> = files.iter().map(|(name, content)| (&**name, *content)).collect();
        let run = dir.run(&context(&vfat(&dir, bits, &files), &[]));
        run.assert_status(125).assert_reason("config-error").assert_one_line_naming(&[&interpreter, "only shells"]);
        let script = format!("START_SCRIPT='#!{interpreter}'\n");
        fs::remove_file(dir.file(&format!("fat{bits}.img"))).expect("it was made");
        let run = dir.run(&context(&vfat(&dir, bits, &[("context.sh", &script)]), &[]));
        run.assert_status(125).assert_one_line_naming(&[&interpreter]);
        fs::remove_file(dir.file(&format!("fat{bits}.img"))).expect("it was made");
    }
}

fn context_on_a_damaged_vfat_disk_is_rejected() {
    let dir = TestDir::new();
    let disk = vfat(&dir, "12", &[("meta-data", "local-hostname: web\n"), ("user-data", &"#!/bin/sh\n".repeat(300))]);
    let whole = fs::read(&disk).expect("it was made");
    // 512 bytes in a sector, two tables.
    let number = |at: usize| usize::from(u16::from_le_bytes([whole[at], whole[at + 1]]));
    let (table, root) = (number(14) * 512, (number(14) + 2 * number(22)) * 512);
    let entry = |name: &[u8]| (root..).step_by(32).find(|at| whole[*at..].starts_with(name)).expect("it was copied");
    let short = entry(b"USER-D~1");
    let first = number(short + 26);
    let damaged = |at: usize, bytes: &[u8]| {
        fs::write(&disk, &whole).expect("it is the test's own");
        let file = fs::OpenOptions::new().write(true).open(&disk).expect("it is the test's own");
        file.write_all_at(bytes, at as u64).expect("it is the test's own");
    };
    // Of each cluster of the file the next one is the first.
    let next = (first | first << 12) as u32;
    let even = first + first % 2;
    for (at, bytes, expected) in [
        (table + even * 3 / 2, &next.to_le_bytes()[..3], "user-data form a loop"),
        (table + even * 3 / 2, &[0, 0, 0], "user-data end before it does"),
        (short + 28, &u32::MAX.to_le_bytes(), "user-data has 4294967295 bytes"),
        (short + 26, &[0xff, 0xff], "one of them is invalid"),
        (510, &[0, 0], "neither an ISO 9660 image nor a VFAT file system"),
    ] {
        damaged(at, bytes);
        let run = dir.run(&context(&disk, &[]));
        run.assert_status(125).assert_reason("config-error").assert_one_line_naming(&[
            "--context",
            "fat12.img",
            expected,
        ]);
    }
    damaged(0, &[]);
    for length in [root + 512, table + 100] {
        let file = fs::OpenOptions::new().write(true).open(&disk).expect("it is the test's own");
        file.set_len(length as u64).expect("it is the test's own");
        dir.run(&context(&disk, &[])).assert_status(125).assert_one_line_naming(&["fat12.img", "the image ends"]);
    }
}

fn context_that_is_none_is_rejected() {
    let dir = TestDir::new();
    fs::create_dir(dir.file("empty")).expect("the directory is writable");
    fs::create_dir_all(dir.file("odd/context.sh")).expect("the directory is writable");
    fs::create_dir(dir.file("large")).expect("the directory is writable");
    fs::write(dir.file("large/context.sh"), vec![b'#'; 300 << 10]).expect("the directory is writable");
    dir.write("text", "hello\n");
    dir.write("empty.iso", "");
    let script = iso_image("CONTEXT.SH;1", b"A='b");
    dir.write("quote.iso", &script);
    dir.write("cut.iso", &script[..18 * 2048 + 100]);
    dir.write("other.iso", iso_image("README.TXT;1", b"hello"));
    let mut huge = script.clone();
    huge[18 * 2048 + 34 + 10..][..4].fill(0xff);
    dir.write("huge.iso", &huge);
    done(Command::new("mkfifo").arg(dir.file("fifo")));
    for (name, expected) in [
        ("missing", "cannot open: No such file"),
        ("empty", "no `context.sh`"),
        ("odd", "cannot read context.sh"),
        ("large", "context.sh has more than 262144 bytes"),
        ("text", "neither an ISO 9660 image nor a VFAT file system"),
        ("empty.iso", "neither an ISO 9660 image nor a VFAT file system"),
        ("fifo", "neither an ISO 9660 image nor a VFAT file system"),
        ("quote.iso", "context.sh, line 1"),
        ("cut.iso", "the image ends before its files do"),
        ("other.iso", "no `context.sh`"),
        ("huge.iso", "context.sh has 4294967295 bytes"),
    ] {
        let run = dir.run(&context(&dir.file(name), &[]));
        run.assert_status(125).assert_reason("config-error").assert_one_line_naming(&["--context", name, expected]);
    }
    let disk = dir.file("missing");
    let system = ["--system", "--rootfs", "x", "--context", &disk.display().to_string()];
    dir.run(&system).assert_status(125).assert_one_line_naming(&["--context", "--system", "--disk"]);
}
