// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Against images that `mke2fs` and `debugfs` make.

use super::*;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

const FEATURES: &str = "none,dir_index,dir_nlink,ext_attr,extent,extra_isize,filetype,flex_bg,has_journal,huge_file,large_file,sparse_super,uninit_bg";

/// Files of every kind in `overlay/upper`, as a guest's kernel leaves them.
fn made(directory: &Path, features: &str) -> File {
    let (tree, image) = (directory.join("tree"), directory.join("image"));
    let upper = tree.join("overlay/upper");
    fs::create_dir_all(upper.join("many")).unwrap();
    fs::write(upper.join("file"), "content").unwrap();
    fs::hard_link(upper.join("file"), upper.join("same")).unwrap();
    symlink("file", upper.join("fast")).unwrap();
    symlink("x".repeat(200), upper.join("slow")).unwrap();
    let sparse = File::create(upper.join("sparse")).unwrap();
    sparse.write_all_at(b"end", 1 << 20).unwrap();
    sparse.set_len((2 << 20) + 5).unwrap();
    for number in 0..600 {
        fs::write(upper.join(format!("many/{number:040}")), "").unwrap();
    }
    let mut mke2fs = Command::new("mke2fs");
    mke2fs.args(["-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-O", features, "-J", "size=4", "-d"]);
    assert!(mke2fs.arg(&tree).arg(&image).arg("24M").output().unwrap().status.success());
    let commands = "cd overlay/upper\nmknod gone c 0 0\nmknod disk b 259 7000\nea_set many trusted.overlay.opaque y\n\
        ea_set file user.note small\nset_inode_field file uid 100000\nset_inode_field file mtime_extra 2000\n";
    fs::write(directory.join("commands"), commands).unwrap();
    let mut debugfs = Command::new("debugfs");
    debugfs.arg("-w").arg("-f").arg(directory.join("commands")).arg(&image);
    assert!(debugfs.output().unwrap().status.success());
    File::options().read(true).write(true).open(&image).unwrap()
}

fn assert_content(file: File) {
    let ext4 = Ext4::open(file).unwrap();
    let nodes = ext4.walk("overlay/upper").unwrap();
    let node = |path: &str| nodes.iter().find(|node| node.path == path.as_bytes()).unwrap();
    assert_eq!(nodes.len(), 600 + 8);
    assert!(node("many").is_opaque() && !node("file").is_opaque());
    assert!(node("gone").inode.is_whiteout() && !node("disk").inode.is_whiteout());
    assert_eq!((node("disk").inode.kind, node("disk").inode.device), (FileKind::BlockDevice, (259, 7000)));
    let file = node("file");
    assert_eq!((file.inode.number, file.inode.links), (node("same").inode.number, 2));
    assert_eq!((file.inode.uid, file.inode.size, file.inode.modified.1), (100_000, 7, 500));
    assert_eq!(file.xattrs, [Xattr { name: b"user.note".into(), value: b"small".into() }]);
    assert_eq!(ext4.link_target(&node("fast").inode).unwrap(), b"file");
    assert_eq!(ext4.link_target(&node("slow").inode).unwrap(), "x".repeat(200).as_bytes());
    let sparse = &node("sparse").inode;
    let extents = ext4.extents(sparse).unwrap();
    assert_eq!(sparse.size, (2 << 20) + 5);
    let extent = extents.iter().find(|extent| extent.offset <= 1 << 20 && extent.offset + extent.length > 1 << 20);
    let extent = extent.unwrap();
    let mut end = [0; 3];
    ext4.file().read_exact_at(&mut end, extent.position + (1 << 20) - extent.offset).unwrap();
    assert_eq!(&end, b"end");
    assert!(extents.iter().map(|extent| extent.length).sum::<u64>() < 1 << 20);
}

#[test]
fn reader_finds_what_mke2fs_wrote() {
    for features in [FEATURES.to_owned(), format!("{FEATURES},64bit")] {
        let directory = tempfile::tempdir().unwrap();
        assert_content(made(directory.path(), &features));
    }
}

#[test]
fn reader_rejects_a_journal_to_replay_and_unknown_features() {
    let directory = tempfile::tempdir().unwrap();
    let file = made(directory.path(), FEATURES);
    let place = SUPERBLOCK + 96;
    let mut features = [0; 4];
    file.read_exact_at(&mut features, place).unwrap();
    let features = u32::from_le_bytes(features);
    let opened = |features: u32| {
        file.write_all_at(&features.to_le_bytes(), place).unwrap();
        Ext4::open(file.try_clone().unwrap())
    };
    assert!(matches!(opened(features | FEATURE_RECOVER), Err(Ext4Error::NeedsRecovery)));
    assert!(matches!(opened(features | 0x8000), Err(Ext4Error::Feature(0x8000))));
    opened(features).unwrap();
    file.set_len(4096).unwrap();
    assert!(matches!(opened(features), Err(Ext4Error::NoMagic)));
}

#[test]
fn reader_rejects_a_directory_that_contains_itself() {
    let directory = tempfile::tempdir().unwrap();
    let file = made(directory.path(), FEATURES);
    let image = directory.path().join("image");
    let link = Command::new("debugfs").args(["-w", "-R", "link overlay overlay/upper/loop"]).arg(&image).output();
    assert!(link.unwrap().status.success());
    let walked = Ext4::open(file).unwrap().walk("");
    assert!(matches!(walked, Err(Ext4Error::Damaged("a directory has two names"))));
}

/// Any byte of what the walk reads, with any value: the walk ends, with an error or not.
#[test]
fn reader_survives_damaged_metadata() {
    let directory = tempfile::tempdir().unwrap();
    let file = made(directory.path(), FEATURES);
    let ext4 = Ext4::open(file.try_clone().unwrap()).unwrap();
    let mut descriptor = [0; 32];
    file.read_exact_at(&mut descriptor, 4096).unwrap();
    let table = u64::from(u32_at(&descriptor, 8).unwrap()) * 4096;
    let upper = ext4.walk("overlay").unwrap().into_iter().find(|node| node.path == b"upper").unwrap();
    let entries = ext4.extents(&upper.inode).unwrap()[0].position;
    let walk = || {
        let Ok(ext4) = Ext4::open(file.try_clone().unwrap()) else { return false };
        let Ok(nodes) = ext4.walk("overlay/upper") else { return false };
        nodes.iter().all(|node| match node.inode.kind {
            FileKind::Symlink => ext4.link_target(&node.inode).is_ok(),
            _ => ext4.extents(&node.inode).is_ok(),
        })
    };
    let mut rejected = 0;
    let areas = [(SUPERBLOCK, 352), (4096, 32), (table + 256, 256), (table + 12 * 256, 1024), (entries, 512)];
    for (start, length) in areas {
        for place in (start..start + length).step_by(2) {
            let mut before = [0];
            file.read_exact_at(&mut before, place).unwrap();
            for value in [0, 0xff, before[0] ^ 0x10] {
                file.write_all_at(&[value], place).unwrap();
                rejected += u32::from(!walk());
            }
            file.write_all_at(&before, place).unwrap();
        }
    }
    assert!(walk() && rejected > 100, "{rejected}");
}
