// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Layers that the kernel wrote, and damaged ones.

use super::*;
use crate::testing::overlay::Layer;
use crate::testing::{Archive, Member};

/// An image with a file of each kind.
fn image() -> Archive {
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    Archive::of([
        Member::directory("bin"),
        Member::file("bin/ping", "ping").mode(0o755).pax("SCHILY.xattr.security.capability", capability),
        Member::file("bin/sh", vec![7; 100_000]).mode(0o755),
        Member::hard_link("bin/ash", "bin/sh"),
        Member::directory("etc"),
        Member::file("etc/passwd", "root:x:0:0\n").pax("mtime", "1700000000.123456789"),
        Member::file("etc/hosts", "of the image\n"),
        Member::file("etc/group", "root:x:0:\n").pax("mtime", "1700000000.5"),
        Member::directory("old"),
        Member::file("old/a", "a"),
        Member::file("old/b", "b").pax("mtime", "1700000000"),
        Member::directory("old/sub"),
        Member::file("old/sub/c", "c"),
        Member::directory("a"),
        Member::file("a/x", "x"),
        Member::file("a-b", "between a and a/x for a sort by bytes"),
        Member::symlink("link", "etc/passwd"),
        Member::new(b'3', "null", "", "").device(1, 3),
        Member::new(b'6', "fifo", "", ""),
    ])
}

fn lines(tree: &MachineTree) -> Vec<String> {
    let mut lines = Vec::new();
    tree.changes(&mut |kind, path| {
        let letter = match kind {
            ChangeKind::Added => 'A',
            ChangeKind::Changed => 'C',
            ChangeKind::Deleted => 'D',
        };
        lines.push(format!("{letter} /{}", String::from_utf8_lossy(path)));
        Ok(())
    })
    .unwrap();
    lines
}

/// Commands in the merged tree, and what `docker diff` lists after them.
const CHANGES: &[(&str, &[&str])] = &[
    ("true", &[]),
    ("cat etc/passwd bin/sh > /dev/null; ls -lR > /dev/null", &[]),
    ("rm etc/passwd; echo hi > new; mkdir -p made/b", &["C /etc", "D /etc/passwd", "A /made", "A /made/b", "A /new"]),
    ("chmod 0644 etc/passwd; chown 0:0 etc/passwd", &[]),
    ("chmod 0600 etc/passwd", &["C /etc", "C /etc/passwd"]),
    ("touch etc/passwd", &["C /etc", "C /etc/passwd"]),
    // The content alone is another one.
    (
        "touch -r etc/group t; printf 'root:y:0:\\n' > etc/group; touch -r t etc/group; rm t",
        &["C /etc", "C /etc/group"],
    ),
    ("setcap -r bin/ping 2> /dev/null || setfattr -x security.capability bin/ping", &["C /bin", "C /bin/ping"]),
    ("rm -r old", &["D /old"]),
    ("rm -r old; mkdir old; echo > old/new", &["C /old", "D /old/a", "D /old/b", "A /old/new", "D /old/sub"]),
    ("cp -p old/b k; rm -r old; mkdir old; mv k old/b", &["C /old", "D /old/a", "D /old/sub"]),
    ("rm -r old; echo > old", &["C /old"]),
    ("rm a-b; mkdir -p a-b/c", &["C /a-b", "A /a-b/c"]),
    ("rm a/x; touch a-b", &["C /a", "D /a/x", "C /a-b"]),
    ("echo > new; rm new; mkdir d; rmdir d", &[]),
    ("mv etc/passwd etc/moved", &["C /etc", "A /etc/moved", "D /etc/passwd"]),
    ("ln etc/passwd linked", &["A /linked"]),
    ("ln -s x y; mknod n c 1 5; mkfifo f", &["A /f", "A /n", "A /y"]),
    ("rm null fifo link", &["D /fifo", "D /link", "D /null"]),
    ("rm link; ln -s etc/shadow link", &["C /link"]),
    ("chmod 0700 old", &["C /old"]),
    ("touch old; touch .", &[]),
    // What PID 1 does.
    ("echo > etc/hosts; echo > etc/hostname; ln -s /proc/mounts etc/mtab; mkdir proc sys dev", &[]),
    ("rm -r etc; mkdir etc; echo > etc/hosts", &["C /etc", "D /etc/group", "D /etc/passwd"]),
    ("mkdir proc; echo > proc/file; rm etc/hosts", &["C /etc", "D /etc/hosts", "A /proc", "A /proc/file"]),
];

#[test]
fn changes_are_those_of_docker() {
    for (changes, expected) in CHANGES {
        let Some(layer) = Layer::of(&image(), changes) else { return };
        for file in ["layer.ext4", "dirty.ext4"] {
            assert_eq!(lines(&layer.tree(file).unwrap()), *expected, "{changes}, {file}");
        }
    }
}

/// Any byte of the image's inodes and directories, with any value: the comparison ends, with an error or not.
#[test]
fn comparison_survives_a_damaged_root_disk() {
    let changes = "rm -r old; mkdir old; cp -p a-b k; rm a-b; mv k a-b; chmod 0644 etc/passwd";
    let Some(layer) = Layer::of(&image(), changes) else { return };
    let path = layer.path("lower.erofs");
    let sound = std::fs::read(&path).unwrap();
    let (mut rejected, mut bytes) = (0, sound.clone());
    for place in (1024..sound.len().min(8192)).step_by(3) {
        for value in [0, 0xff, sound[place] ^ 0x10] {
            bytes[place] = value;
            std::fs::write(&path, &bytes).unwrap();
            rejected += match layer.tree("layer.ext4") {
                Err(_) => 1,
                Ok(tree) => u32::from(tree.changes(&mut |_, _| Ok(())).is_err()),
            };
        }
        bytes[place] = sound[place];
    }
    assert!(rejected > 50, "{rejected}");
}

#[test]
fn layer_is_rejected_where_a_directory_is_redirected_or_nested_too_deeply() {
    let deep = "n=0; while [ $n -lt 1030 ]; do mkdir d; cd d; n=$((n + 1)); done";
    let Some(layer) = Layer::of(&image(), deep) else { return };
    let error = layer.tree("layer.ext4").unwrap().changes(&mut |_, _| Ok(())).unwrap_err();
    assert!(error.to_string().contains("nested too deeply"), "{error}");
    let Some(layer) = Layer::of(&image(), "mkdir new") else { return };
    let mut debugfs = std::process::Command::new("debugfs");
    debugfs.args(["-w", "-R", "ea_set overlay/upper/new trusted.overlay.redirect old"]).arg(layer.path("layer.ext4"));
    assert!(debugfs.output().unwrap().status.success());
    let error = layer.tree("layer.ext4").unwrap().changes(&mut |_, _| Ok(())).unwrap_err();
    assert_eq!(error.to_string(), "/new: a redirected directory is not supported");
}
