// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--root-format`: the workload finds the same image in every format of the root disk. `image export`: such disks as files.

use coracle_tests::{Case, Finished, TestDir, case, image};
use std::fs;
use std::process::Command;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Full, image_is_the_same_as_squashfs_and_as_erofs),
        case!(Full, root_without_an_overlay_is_the_requested_file_system),
        case!(Quick, unknown_root_format_is_rejected),
        case!(Quick, exported_image_is_a_disk_or_an_archive),
    ]
}

/// All files below its arguments with metadata, attributes and contents.
pub(crate) const LIST: &str = "\
import os, stat, sys, zlib
def show(path):
    s = os.lstat(path)
    kind = stat.S_IFMT(s.st_mode)
    size = 0 if stat.S_ISDIR(s.st_mode) else s.st_size
    links = 0 if stat.S_ISDIR(s.st_mode) else s.st_nlink
    attributes = [(name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(os.listxattr(path, follow_symlinks=False))]
    content = ''
    if stat.S_ISLNK(s.st_mode): content = os.readlink(path)
    if stat.S_ISREG(s.st_mode): content = zlib.crc32(open(path, 'rb').read())
    print(path, oct(s.st_mode), s.st_uid, s.st_gid, links, size, int(s.st_mtime), s.st_rdev, attributes, content)
for top in sys.argv[1:]:
    show(top)
    for directory, directories, files in os.walk(top):
        directories.sort()
        for name in sorted(directories + files): show(os.path.join(directory, name))
";

fn image_is_the_same_as_squashfs_and_as_erofs() {
    let dir = TestDir::new();
    let list = |format: &str| -> Finished {
        // Without what an overlay adds.
        let words = ["--root-format", format, "-u", "root", &image("python"), "-c", LIST];
        let run = dir.run(&[&words[..], &["/usr", "/srv", "/bin", "/lib", "/var"]].concat());
        run.assert_status(0).assert_stderr("");
        run
    };
    let (erofs, squashfs) = (list("erofs"), list("squashfs"));
    let lines = squashfs.stdout_text();
    assert!(lines.lines().count() > 500 && lines.contains("security.capability"), "{}", squashfs.report());
    for (one, other) in erofs.stdout_text().lines().zip(lines.lines()) {
        assert_eq!(one, other);
    }
    assert_eq!(erofs.stdout.len(), squashfs.stdout.len());
    assert_ne!(erofs.result_at("/digests/root_disk"), squashfs.result_at("/digests/root_disk"));
}

fn root_without_an_overlay_is_the_requested_file_system() {
    let dir = TestDir::new();
    let disk = dir.file("disk.ext4").display().to_string();
    export(&dir, &["--format", "ext4", &image("busybox"), &disk]).assert_status(0).assert_stdout("");
    let check = Command::new("e2fsck").args(["-fn", &disk]).output().expect("e2fsprogs is installed");
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
    let busybox = image("busybox");
    for (options, expected) in [
        // Coracle's kernel has both formats of images.
        (["--root-format", "auto", &busybox], "erofs"),
        (["--root-format", "squashfs", &busybox], "squashfs"),
        (["--rootfs", &disk, "sh"], "ext4"),
    ] {
        let command = if expected == "ext4" { &["-c", LIST_ROOT][..] } else { &["sh", "-c", LIST_ROOT] };
        let run = dir.run(&[&["--scratch", "none"], &options[..], command].concat());
        run.assert_status(0);
        assert_eq!(run.stdout_text().split(' ').nth(2), Some(expected), "{}", run.report());
    }
}

const LIST_ROOT: &str = "grep ' / ' /proc/mounts";

fn export(dir: &TestDir, words: &[&str]) -> Finished {
    dir.invocation(&[&["export"], words].concat()).verb("image").finish()
}

fn exported_image_is_a_disk_or_an_archive() {
    let dir = TestDir::new();
    let path = |name: &str| dir.file(name).display().to_string();
    for (format, at, magic) in [
        ("erofs", 1024, &b"\xe2\xe1\xf5\xe0"[..]),
        ("squashfs", 0, b"hsqs"),
        ("ext4", 1024 + 56, b"\x53\xef"),
        ("tar", 257, b"ustar"),
    ] {
        export(&dir, &["--format", format, &image("busybox"), &path(format)]).assert_status(0).assert_stdout("");
        let bytes = fs::read(path(format)).expect("it was written");
        assert_eq!(&bytes[at..at + magic.len()], magic, "{format}");
    }
    let archive = export(&dir, &[&image("busybox"), "-"]);
    archive.assert_status(0);
    assert!(archive.stdout == fs::read(path("tar")).expect("it was written"), "tar is the default");
    for (words, objects) in [
        (["--format", "erofs", &image("busybox"), "-"], &["only tar"][..]),
        (["--format", "tar", &image("busybox"), "/nowhere/x"], &["/nowhere/x", "No such file"]),
        (["--format", "ntfs", &image("busybox"), &path("x")], &["--format", "ntfs"]),
        (["--pull", "never", "no-such-image", &path("x")], &["no-such-image", "not in the local store"]),
    ] {
        export(&dir, &words).assert_status(125).assert_one_line_naming(objects);
    }
    assert!(!dir.file("x").exists());
}

fn unknown_root_format_is_rejected() {
    let dir = TestDir::new();
    let run = dir.run(&["--root-format", "ntfs", "oci:/nowhere"]);
    run.assert_status(125).assert_one_line_naming(&["--root-format", "ntfs"]);
}
