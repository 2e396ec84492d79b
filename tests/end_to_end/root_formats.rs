// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--root-format`: the workload finds the same image in every format of the root disk.

use coracle_tests::{Case, Finished, TestDir, case, image};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Full, image_is_the_same_as_squashfs_and_as_erofs),
        case!(Full, root_without_an_overlay_is_the_requested_file_system),
        case!(Quick, unknown_root_format_is_rejected),
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
    for format in ["auto", "erofs", "squashfs"] {
        let arguments = ["--root-format", format, "--scratch", "none", &image("busybox"), "sh", "-c"];
        let run = dir.run(&[&arguments[..], &["grep ' / ' /proc/mounts"]].concat());
        // Coracle's kernel has both.
        let expected = format.replace("auto", "erofs");
        run.assert_status(0);
        assert_eq!(run.stdout_text().split(' ').nth(2), Some(&*expected), "{}", run.report());
    }
}

fn unknown_root_format_is_rejected() {
    let dir = TestDir::new();
    let run = dir.run(&["--root-format", "ntfs", "oci:/nowhere"]);
    run.assert_status(125).assert_one_line_naming(&["--root-format", "ntfs"]);
}
