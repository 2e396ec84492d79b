// SPDX-License-Identifier: Apache-2.0 OR MIT
//! File systems that `e2fsck` finds no fault in, and that this crate's reader and the kernel read.

use super::*;
use crate::erofs::Erofs;
use crate::ext4::Ext4;
use crate::file_system::Xattr;
use crate::root_disk::RootDisk;
use crate::testing::{Archive, Member, image_of};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

const UUID: [u8; 16] = *b"0123456789abcdef";

fn erofs(archive: &Archive) -> Erofs {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, image_of(&[archive.bytes()]).unwrap()).unwrap();
    Erofs::open(RootDisk::open(file.path().to_owned(), []).unwrap(), Arc::default()).unwrap()
}

/// Writes the files of `archive`, and checks the file system.
fn written(archive: &Archive, path: &Path) -> Ext4 {
    write(&erofs(archive), UUID, &File::create(path).unwrap(), &Budget::default(), &|_, _| {}).unwrap();
    let check = Command::new("e2fsck").arg("-fn").arg(path).output().unwrap();
    let text = String::from_utf8_lossy(&check.stdout);
    assert!(check.status.success(), "{text}");
    Ext4::open(File::open(path).unwrap(), Arc::default()).unwrap()
}

/// A file with its content; numbers of inodes only where they tell names of one file.
type Seen = (Metadata, Vec<Xattr>, Vec<u8>, Option<String>);

fn files(file_system: &dyn FileSystem) -> BTreeMap<String, Seen> {
    let mut files = BTreeMap::new();
    let mut names: BTreeMap<u64, String> = BTreeMap::new();
    let mut directories = vec![(String::new(), file_system.root())];
    while let Some((path, number)) = directories.pop() {
        for (name, number) in file_system.entries(number).unwrap() {
            let path = format!("{path}/{}", name.escape_ascii());
            let mut metadata = file_system.metadata(number).unwrap();
            let mut content = Vec::new();
            match metadata.kind {
                FileKind::Directory => {
                    metadata.size = 0;
                    metadata.links = 0;
                    directories.push((path.clone(), number));
                }
                FileKind::Symlink => content = file_system.link_target(number).unwrap(),
                FileKind::Regular => {
                    content = vec![0; metadata.size as usize];
                    for extent in file_system.extents(number).unwrap() {
                        let end = (extent.offset + extent.length) as usize;
                        file_system.read_at(&mut content[extent.offset as usize..end], extent.position).unwrap();
                    }
                }
                _ => {}
            }
            let same = names.get(&number).cloned();
            names.entry(number).or_insert_with(|| path.clone());
            files.insert(path, (metadata, file_system.xattrs(number).unwrap(), content, same));
        }
    }
    files
}

fn image() -> Archive {
    let acl = [
        &2_u32.to_le_bytes()[..],
        &[1, 0, 6, 0, 255, 255, 255, 255],
        &[2, 0, 4, 0, 0xe8, 3, 0, 0],
        &[4, 0, 4, 0, 255, 255, 255, 255],
        &[16, 0, 4, 0, 255, 255, 255, 255],
        &[32, 0, 4, 0, 255, 255, 255, 255],
    ];
    let mut sparse = vec![0; 3 << 20];
    sparse[1 << 20] = 1;
    sparse[(3 << 20) - 1] = 2;
    let mut archive = Archive::of([
        Member::directory("bin").mode(0o2755).owner(70_000, 3_000_000),
        Member::file("bin/sh", vec![7; 100_000]).mode(0o4755),
        Member::hard_link("bin/ash", "bin/sh"),
        Member::file("empty", ""),
        Member::file("tail", vec![b't'; 4097]),
        Member::file("sparse", sparse),
        Member::file("acl", "x").pax("SCHILY.xattr.system.posix_acl_access", acl.concat()),
        Member::file("two", "x").pax("SCHILY.xattr.user.b", "2").pax("SCHILY.xattr.user.a", "0123456789"),
        Member::file("same", "x").pax("SCHILY.xattr.user.b", "2").pax("SCHILY.xattr.user.a", "0123456789"),
        Member::file("early", "x").pax("mtime", "-1.5"),
        Member::file("late", "x").pax("mtime", "5000000000.000000001"),
        Member::symlink("fast", "x".repeat(59)),
        Member::symlink("slow", "x".repeat(60)),
        Member::new(b'3', "null", "", "").device(1, 3),
        Member::new(b'4', "disk", "", "").device(259, 300_000),
        Member::new(b'6', "fifo", "", ""),
        Member::directory("many"),
        Member::file("n".repeat(255), "long"),
        Member::file([0xff, b'\n'], "bytes"),
    ]);
    for number in 0..700 {
        archive = archive.with(Member::file(format!("many/{number:060}"), format!("{number}")));
    }
    for number in 0..30 {
        archive = archive.with(Member::directory(format!("many/directories/{number}")));
    }
    archive
}

#[test]
fn files_are_those_of_the_image() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    let ext4 = written(&image(), &path);
    let mut read = files(&ext4);
    let (lost, ..) = read.remove("/lost+found").unwrap();
    assert_eq!((lost.kind, lost.permissions), (FileKind::Directory, 0o700));
    let expected = files(&erofs(&image()));
    assert!(read == expected, "{:?}", expected.iter().find(|(path, file)| read.get(*path) != Some(*file)));
    let again = directory.path().join("again");
    written(&image(), &again);
    assert!(fs::read(&path).unwrap() == fs::read(&again).unwrap(), "the same files give the same bytes");
}

#[test]
fn empty_image_and_its_own_lost_and_found_are_written() {
    let directory = tempfile::tempdir().unwrap();
    let ext4 = written(&Archive::new(), &directory.path().join("empty"));
    assert_eq!(files(&ext4).into_keys().collect::<Vec<_>>(), ["/lost+found"]);
    let own = Archive::of([Member::directory("lost+found").mode(0o755), Member::file("lost+found/x", "x")]);
    let ext4 = written(&own, &directory.path().join("own"));
    assert_eq!(files(&ext4).into_keys().collect::<Vec<_>>(), ["/lost+found", "/lost+found/x"]);
}

/// A file whose blocks have to be described in blocks of their own, at two depths.
#[test]
fn file_of_many_extents_has_a_tree() {
    for count in [5, 341, 1500] {
        let mut tree = ExtentTree::default();
        (0..count).for_each(|number| tree.push(Run { block: 2 * number, start: 1000 + 2 * number, count: 1 }));
        let mut nodes = 0;
        let map = tree.write(&mut |_| {
            nodes += 1;
            Ok(nodes)
        });
        assert!(nodes <= extent_tree::max_blocks(count, count) && nodes >= count.div_ceil(340), "{count}: {nodes}");
        let depth = u16::from_le_bytes([map.as_ref().unwrap().bytes()[6], map.unwrap().bytes()[7]]);
        assert_eq!(depth, if count > 4 * 340 { 2 } else { 1 });
    }
    let directory = tempfile::tempdir().unwrap();
    // Every other 64 KiB is a hole.
    let content: Vec<u8> = (0..24 << 20).map(|at: u32| if at >> 16 & 1 == 0 { 1 } else { 0 }).collect();
    let archive = Archive::of([Member::file("holes", &content)]);
    let ext4 = written(&archive, &directory.path().join("disk"));
    assert!(files(&ext4)["/holes"].2 == content);
}

/// Several groups of blocks, of which some have a copy of the superblock.
#[test]
fn file_above_a_group_is_split() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    let source = Large(300 << 20);
    write(&source, UUID, &File::create(&path).unwrap(), &Budget::default(), &|_, _| {}).unwrap();
    let check = Command::new("e2fsck").arg("-fn").arg(&path).output().unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
    let error = write(&Large(1 << 50), UUID, &File::create(&path).unwrap(), &Budget::default(), &|_, _| {});
    assert!(matches!(error, Err(Ext4Error::TooLarge)));
}

/// One file of this size.
struct Large(u64);

impl FileSystem for Large {
    fn root(&self) -> u64 {
        1
    }

    fn metadata(&self, file: u64) -> Result<Metadata, FileSystemError> {
        let kind = if file == 1 { FileKind::Directory } else { FileKind::Regular };
        let (size, modified, device) = (self.0, (0, 0), (0, 0));
        Ok(Metadata { kind, permissions: 0o755, uid: 0, gid: 0, size, links: 1, modified, device })
    }

    fn entries(&self, _: u64) -> Result<Vec<Name>, FileSystemError> {
        Ok(vec![(Box::from(*b"large"), 2)])
    }

    fn xattrs(&self, _: u64) -> Result<Vec<Xattr>, FileSystemError> {
        Ok(Vec::new())
    }

    fn link_target(&self, _: u64) -> Result<Vec<u8>, FileSystemError> {
        Ok(Vec::new())
    }

    fn extents(&self, _: u64) -> Result<Vec<Extent>, FileSystemError> {
        Ok(vec![Extent { offset: 0, length: self.0, position: 0 }])
    }

    fn read_at(&self, buffer: &mut [u8], _: u64) -> io::Result<()> {
        buffer.fill(0);
        Ok(())
    }
}
