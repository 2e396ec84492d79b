// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Against images that `mke2fs` and `debugfs` make.

use super::*;
use crate::file_system::{FileKind, FileSystem as _};
use crate::testing::overlay::Layer;
use crate::testing::{Archive, Member};
use std::collections::{BTreeMap, BTreeSet};
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

fn opened(file: &File) -> Result<Ext4, FileSystemError> {
    Ext4::open(file.try_clone().unwrap(), Arc::default())
}

/// Numbers of all files below the root directory, by path. A directory that is met twice ends it, as in `machine_tree`: below a
/// name of a directory above, paths would grow up to the budget.
fn walk(ext4: &Ext4) -> Result<BTreeMap<String, u64>, FileSystemError> {
    let (mut files, mut met) = (BTreeMap::new(), BTreeSet::from([ROOT]));
    let mut directories = vec![(String::new(), ROOT)];
    while let Some((path, number)) = directories.pop() {
        for (name, number) in ext4.entries(number)? {
            let path = format!("{path}/{}", String::from_utf8_lossy(&name));
            if ext4.metadata(number)?.kind == FileKind::Directory {
                if !met.insert(number) {
                    return Err(damaged("a directory has two names"));
                }
                directories.push((path.clone(), number));
            }
            ext4.xattrs(number)?;
            files.insert(path, number);
        }
    }
    Ok(files)
}

fn assert_content(file: &File) {
    let ext4 = opened(file).unwrap();
    let files = walk(&ext4).unwrap();
    let number = |path: &str| files[&format!("/overlay/upper/{path}")];
    let metadata = |path: &str| ext4.metadata(number(path)).unwrap();
    assert_eq!(files.len(), 600 + 8 + 3);
    let xattr = |name: &str, value: &str| Xattr { name: name.into(), value: value.into() };
    assert_eq!(ext4.xattrs(number("many")).unwrap(), [xattr("trusted.overlay.opaque", "y")]);
    assert_eq!(ext4.xattrs(number("file")).unwrap(), [xattr("user.note", "small")]);
    assert_eq!((metadata("gone").kind, metadata("gone").device), (FileKind::CharDevice, (0, 0)));
    assert_eq!((metadata("disk").kind, metadata("disk").device), (FileKind::BlockDevice, (259, 7000)));
    let file = metadata("file");
    assert_eq!((number("file"), file.links), (number("same"), 2));
    assert_eq!((file.uid, file.size, file.modified.1), (100_000, 7, 500));
    assert_eq!(ext4.link_target(number("fast")).unwrap(), b"file");
    assert_eq!(ext4.link_target(number("slow")).unwrap(), "x".repeat(200).as_bytes());
    let extents = ext4.extents(number("sparse")).unwrap();
    assert_eq!(metadata("sparse").size, (2 << 20) + 5);
    let extent = extents.iter().find(|extent| extent.offset <= 1 << 20 && extent.offset + extent.length > 1 << 20);
    let extent = extent.unwrap();
    let mut end = [0; 3];
    ext4.read_at(&mut end, extent.position + (1 << 20) - extent.offset).unwrap();
    assert_eq!(&end, b"end");
    assert!(extents.iter().map(|extent| extent.length).sum::<u64>() < 1 << 20);
}

#[test]
fn reader_finds_what_mke2fs_wrote() {
    for features in [FEATURES.to_owned(), format!("{FEATURES},64bit")] {
        let directory = tempfile::tempdir().unwrap();
        assert_content(&made(directory.path(), &features));
    }
}

#[test]
fn reader_rejects_unknown_features_and_other_files() {
    let directory = tempfile::tempdir().unwrap();
    let file = made(directory.path(), FEATURES);
    let place = SUPERBLOCK + 96;
    let mut features = [0; 4];
    file.read_exact_at(&mut features, place).unwrap();
    let features = u32::from_le_bytes(features);
    let with = |features: u32| {
        file.write_all_at(&features.to_le_bytes(), place).unwrap();
        opened(&file)
    };
    assert!(matches!(with(features | 0x8000), Err(FileSystemError::Feature(_, 0x8000))));
    // Nothing is in the journal.
    walk(&with(features | FEATURE_RECOVER).unwrap()).unwrap();
    for size in [4096, 1500, 0] {
        file.set_len(size).unwrap();
        assert!(opened(&file).is_err(), "{size}");
    }
}

/// The kernel's view of a layer whose journal was not replayed.
fn killed() -> Option<Layer> {
    let image = Archive::of([Member::directory("d"), Member::file("d/a", "a")]);
    Layer::of(
        &image,
        "rm -r d; mkdir d; for n in $(seq 300); do echo $n > d/$n; done; sync; rm d/2*; mkdir d/2; echo x > d/2/x",
    )
}

#[test]
fn journal_is_replayed_as_by_e2fsck() {
    let Some(layer) = killed() else { return };
    let file = File::open(layer.path("dirty.ext4")).unwrap();
    let ext4 = opened(&file).unwrap();
    assert!(ext4.geometry.needs_recovery && walk(&ext4).is_ok());
    let ours = walk(&ext4).unwrap();
    let e2fsck = Command::new("e2fsck").arg("-fy").arg(layer.path("dirty.ext4")).output().unwrap();
    assert!(matches!(e2fsck.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&e2fsck.stdout));
    let replayed = opened(&file).unwrap();
    assert!(!replayed.geometry.needs_recovery);
    assert_eq!(ours, walk(&replayed).unwrap());
    assert!(ours.contains_key("/overlay/upper/d/2/x") && !ours.contains_key("/overlay/upper/d/20"));
}

/// Any byte of what the journal has, with any value.
#[test]
fn reader_survives_a_damaged_journal() {
    let Some(layer) = killed() else { return };
    let file = File::options().read(true).write(true).open(layer.path("dirty.ext4")).unwrap();
    let ext4 = opened(&file).unwrap();
    let log = ext4.read_log(8).unwrap().unwrap();
    let mut places: Vec<u64> = (0..64).collect();
    places.extend([0, 1, 2].iter().flat_map(|after| {
        let block = log.position(log.start + after).unwrap() - log.position(0).unwrap();
        (0..64).map(move |at| block + at)
    }));
    let mut rejected = 0;
    for place in places {
        let place = log.position(0).unwrap() + place;
        let mut old = [0];
        file.read_exact_at(&mut old, place).unwrap();
        for value in [0, 0xff, old[0] ^ 0x10, old[0].wrapping_add(1)] {
            file.write_all_at(&[value], place).unwrap();
            rejected += u32::from(opened(&file).and_then(|ext4| walk(&ext4)).is_err());
        }
        file.write_all_at(&old, place).unwrap();
    }
    assert!(rejected > 50, "{rejected}");
}

/// Any byte of what the walk reads, with any value: the walk ends, with an error or not.
#[test]
fn reader_survives_damaged_metadata() {
    let directory = tempfile::tempdir().unwrap();
    let file = made(directory.path(), FEATURES);
    let ext4 = opened(&file).unwrap();
    let mut descriptor = [0; 32];
    file.read_exact_at(&mut descriptor, 4096).unwrap();
    let table = u64::from(u32_at(&descriptor, 8).unwrap()) * 4096;
    let upper = ext4.inode(walk(&ext4).unwrap()["/overlay/upper"]).unwrap();
    let entries = ext4.read_extents(&upper).unwrap()[0].position;
    let is_sound = || {
        let Ok(ext4) = opened(&file) else { return false };
        let Ok(files) = walk(&ext4) else { return false };
        files.values().all(|number| match ext4.metadata(*number).map(|file| file.kind) {
            Ok(FileKind::Symlink) => ext4.link_target(*number).is_ok(),
            Ok(FileKind::Regular) => ext4.extents(*number).is_ok(),
            kind => kind.is_ok(),
        })
    };
    let mut rejected = 0;
    let areas = [(SUPERBLOCK, 352), (4096, 32), (table + 256, 256), (table + 12 * 256, 1024), (entries, 512)];
    for (start, length) in areas {
        for place in (start..start + length).step_by(5) {
            let mut before = [0];
            file.read_exact_at(&mut before, place).unwrap();
            for value in [0, 0xff, before[0] ^ 0x10] {
                file.write_all_at(&[value], place).unwrap();
                rejected += u32::from(!is_sound());
            }
            file.write_all_at(&before, place).unwrap();
        }
    }
    assert!(is_sound() && rejected > 100, "{rejected}");
}
