// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The file server against a driver in memory, which sends bytes that no Linux would.

use super::device::{Fs, FsConfig};
use super::server::{Export, Server};
use super::wire::*;
use super::{host_file, wire};
use crate::testing::{Buffer, Driver};
use rustix::io::Errno;
use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::Arc;
use zerocopy::{FromBytes, IntoBytes};

/// A server of a new directory, below a directory that has a file `secret`, and a directory `closed` that the guest cannot enter.
pub(super) struct Share {
    _outside: tempfile::TempDir,
    directory: std::path::PathBuf,
    server: Server,
    driver: Driver,
}

impl Share {
    pub(super) fn new() -> Self {
        Self::open(false, None)
    }

    fn open(read_only: bool, only: Option<&str>) -> Self {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "secret").unwrap();
        let directory = outside.path().join("shared");
        fs::create_dir(&directory).unwrap();
        let root = File::open(&directory).unwrap().into();
        let key = host_file::Key::of(&host_file::status(&root).unwrap());
        let closed = outside.path().join("closed");
        fs::create_dir(&closed).unwrap();
        let closed = vec![host_file::Key::of(&host_file::status(File::open(closed).unwrap()).unwrap())];
        let export = Export {
            name: "share test".to_owned(),
            directory: Arc::new(root),
            key,
            only: only.map(|name| CString::new(name).unwrap()),
            read_only,
            owners: host_file::Owners::of_this_process(),
            max_descriptors: 16,
            closed,
            counters: Arc::default(),
        };
        let server = Server::new(Arc::new(export));
        Self { _outside: outside, directory, server, driver: Driver::new(&[512]) }
    }

    pub(super) fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.join(name)
    }

    /// Sends one request in a ring of its own; returns the answer behind its header, or the error.
    fn send(&mut self, opcode: u32, nodeid: u64, parts: &[&[u8]], space: u32) -> Result<Vec<u8>, Errno> {
        let body = parts.concat();
        let len = (size_of::<InHeader>() + body.len()) as u32;
        let header = InHeader { len, opcode, unique: 7, nodeid, ..InHeader::default() };
        let bytes = self.raw(&[header.as_bytes(), &body].concat(), space);
        let (out, rest) = OutHeader::read_from_prefix(&bytes).expect("an answer has a header");
        assert_eq!((out.len as usize, out.unique), (bytes.len(), 7));
        if out.error == 0 { Ok(rest.to_vec()) } else { Err(Errno::from_raw_os_error(-out.error)) }
    }

    /// Sends any bytes; returns the bytes that were written.
    pub(super) fn raw(&mut self, bytes: &[u8], space: u32) -> Vec<u8> {
        self.driver = Driver::new(&[512]);
        let mut queue = self.driver.virtqueue(0, 0);
        let offered = self.driver.offer(0, &[Buffer::Readable(bytes), Buffer::Writable(space)]);
        let taken = queue.take().expect("it was offered");
        let written = self.server.serve(&mut taken.chain());
        queue.finish(taken, written);
        let mut contents = self.driver.contents(&offered, 1);
        contents.truncate(written as usize);
        contents
    }

    fn lookup(&mut self, parent: u64, name: &[u8]) -> Result<EntryOut, Errno> {
        let bytes = self.send(opcode::LOOKUP, parent, &[name, b"\0"], 4096)?;
        Ok(EntryOut::read_from_bytes(&bytes).expect("an entry"))
    }

    fn open_file(&mut self, node: u64, flags: i32) -> Result<u64, Errno> {
        let request = OpenIn { flags: flags as u32, open_flags: 0 };
        let bytes = self.send(opcode::OPEN, node, &[request.as_bytes()], 4096)?;
        Ok(OpenOut::read_from_bytes(&bytes).expect("a handle").fh)
    }

    fn read(&mut self, fh: u64, size: u32, space: u32) -> Result<Vec<u8>, Errno> {
        let request = ReadIn { fh, size, ..ReadIn::default() };
        self.send(opcode::READ, ROOT, &[request.as_bytes()], space)
    }

    fn write(&mut self, fh: u64, size: u32, data: &[u8]) -> Result<Vec<u8>, Errno> {
        let request = WriteIn { fh, size, ..WriteIn::default() };
        self.send(opcode::WRITE, ROOT, &[request.as_bytes(), data], 4096)
    }

    fn create(&mut self, parent: u64, name: &[u8]) -> Result<(u64, u64), Errno> {
        let request = CreateIn { flags: libc::O_RDWR as u32, mode: 0o640, ..CreateIn::default() };
        let bytes = self.send(opcode::CREATE, parent, &[request.as_bytes(), name, b"\0"], 4096)?;
        let (entry, rest) = EntryOut::read_from_prefix(&bytes).expect("an entry");
        Ok((entry.nodeid, OpenOut::read_from_bytes(rest).expect("a handle").fh))
    }

    /// Names of the root directory.
    fn names(&mut self, opcode: u32) -> Vec<String> {
        let bytes = self.send(opcode::OPENDIR, ROOT, &[OpenIn::default().as_bytes()], 4096).unwrap();
        let fh = OpenOut::read_from_bytes(&bytes).unwrap().fh;
        let (mut names, mut offset) = (Vec::new(), 0);
        loop {
            let request = ReadIn { fh, offset, size: 512, ..ReadIn::default() };
            let bytes = self.send(opcode, ROOT, &[request.as_bytes()], 4096).unwrap();
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                if opcode == opcode::READDIRPLUS {
                    rest = &rest[size_of::<EntryOut>()..];
                }
                let (entry, name) = Dirent::read_from_prefix(rest).unwrap();
                let length = entry.namelen as usize;
                names.push(String::from_utf8(name[..length].to_vec()).unwrap());
                rest = &name[length.next_multiple_of(8)..];
                offset = entry.off;
            }
            if bytes.is_empty() {
                return names;
            }
        }
    }
}

#[test]
fn file_is_created_written_read_and_renamed() {
    let mut share = Share::new();
    let (node, fh) = share.create(ROOT, b"a").unwrap();
    assert_eq!(WriteOut::read_from_bytes(&share.write(fh, 5, b"hello").unwrap()).unwrap().size, 5);
    assert_eq!(share.read(fh, 100, 4096).unwrap(), b"hello");
    assert_eq!(fs::metadata(share.path("a")).unwrap().permissions().mode() & 0o7777, 0o640);
    share.send(opcode::RENAME, ROOT, &[RenameIn { newdir: ROOT }.as_bytes(), b"a\0b\0"], 4096).unwrap();
    assert_eq!(fs::read(share.path("b")).unwrap(), b"hello");
    assert_eq!(share.lookup(ROOT, b"b").unwrap().nodeid, node, "it keeps its number");
    share.send(opcode::UNLINK, ROOT, &[b"b\0"], 4096).unwrap();
    assert_eq!(share.read(fh, 2, 4096).unwrap(), b"he", "it is open");
    assert_eq!(share.lookup(ROOT, b"b").unwrap_err(), Errno::NOENT);
}

#[test]
fn name_that_is_a_path_is_rejected_by_every_operation() {
    let mut share = Share::new();
    fs::write(share.path("a"), "").unwrap();
    for name in [&b".."[..], b".", b"", b"../secret", b"/etc/passwd", b"a/../../secret", b"/"] {
        assert_eq!(share.lookup(ROOT, name).unwrap_err(), Errno::INVAL, "{name:?}");
        assert_eq!(share.create(ROOT, name).unwrap_err(), Errno::INVAL);
        let (mkdir, mknod) = (MkdirIn::default(), MknodIn { mode: libc::S_IFREG, ..MknodIn::default() });
        let (rename, link) = (RenameIn { newdir: ROOT }, LinkIn { oldnodeid: ROOT });
        let bodies: [(u32, Vec<&[u8]>); 8] = [
            (opcode::MKDIR, vec![mkdir.as_bytes(), name, b"\0"]),
            (opcode::MKNOD, vec![mknod.as_bytes(), name, b"\0"]),
            (opcode::SYMLINK, vec![name, b"\0", b"x\0"]),
            (opcode::UNLINK, vec![name, b"\0"]),
            (opcode::RMDIR, vec![name, b"\0"]),
            (opcode::RENAME, vec![rename.as_bytes(), b"a\0", name, b"\0"]),
            (opcode::RENAME, vec![rename.as_bytes(), name, b"\0b\0"]),
            (opcode::LINK, vec![link.as_bytes(), name, b"\0"]),
        ];
        for (opcode, body) in bodies {
            assert_eq!(share.send(opcode, ROOT, &body, 4096).unwrap_err(), Errno::INVAL, "{opcode} {name:?}");
        }
    }
}

#[test]
fn symbolic_link_is_never_followed() {
    let mut share = Share::new();
    symlink("../secret", share.path("file")).unwrap();
    symlink("..", share.path("up")).unwrap();
    let file = share.lookup(ROOT, b"file").unwrap();
    assert_eq!(file.attr.mode & libc::S_IFMT, libc::S_IFLNK);
    assert_eq!(share.send(opcode::READLINK, file.nodeid, &[], 4096).unwrap(), b"../secret");
    assert_eq!(share.open_file(file.nodeid, libc::O_RDONLY).unwrap_err(), Errno::ACCESS);
    let up = share.lookup(ROOT, b"up").unwrap().nodeid;
    assert_eq!(share.lookup(up, b"secret").unwrap_err(), Errno::NOTDIR);
    assert_eq!(share.create(up, b"new").unwrap_err(), Errno::NOTDIR);
    assert_eq!(share.send(opcode::OPENDIR, up, &[OpenIn::default().as_bytes()], 4096).unwrap_err(), Errno::NOTDIR);
    for (valid, mode) in [(setattr::MODE, 0o777), (setattr::SIZE, 0)] {
        let request = SetattrIn { valid, mode, ..SetattrIn::default() };
        share.send(opcode::SETATTR, file.nodeid, &[request.as_bytes()], 4096).unwrap_err();
    }
    let secret = share.directory.parent().unwrap().join("secret");
    assert_eq!(fs::read(secret).unwrap(), b"secret");
}

#[test]
fn symbolic_link_gets_a_second_name() {
    let mut share = Share::new();
    symlink("../secret", share.path("soft")).unwrap();
    let node = share.lookup(ROOT, b"soft").unwrap().nodeid;
    let link = LinkIn { oldnodeid: node };
    share.send(opcode::LINK, ROOT, &[link.as_bytes(), b"again\0"], 4096).unwrap();
    assert_eq!(fs::read_link(share.path("again")).unwrap(), Path::new("../secret"));
    assert_eq!(fs::symlink_metadata(share.path("soft")).unwrap().nlink(), 2);
}

#[test]
fn write_appends_only_if_its_own_flags_say_so() {
    let mut share = Share::new();
    let (node, _) = share.create(ROOT, b"a").unwrap();
    let fh = share.open_file(node, libc::O_WRONLY | libc::O_APPEND).unwrap();
    let mut write = |offset, flags: i32, write_flags, data: &[u8]| {
        let (size, flags) = (data.len() as u32, flags as u32);
        let request = WriteIn { fh, offset, size, write_flags, flags, ..WriteIn::default() };
        share.send(opcode::WRITE, node, &[request.as_bytes(), data], 64).unwrap();
    };
    write(0, libc::O_APPEND, 0, b"abc");
    write(0, libc::O_APPEND, 0, b"def");
    write(1, 0, 0, b"B");
    // A page of the cache.
    write(2, libc::O_APPEND, 1, b"C");
    assert_eq!(fs::read(share.path("a")).unwrap(), b"aBCdef");
}

#[test]
fn write_takes_set_id_bits_where_the_request_says_so() {
    let mut share = Share::new();
    let (node, fh) = share.create(ROOT, b"a").unwrap();
    let path = share.path("a");
    let mut after = |opcode, request: &[u8], mode| {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        share.send(opcode, node, &[request, b"x"], 4096).unwrap();
        fs::metadata(&path).unwrap().mode() & 0o7777
    };
    let root = rustix::process::geteuid().is_root();
    let write = |write_flags| WriteIn { fh, size: 1, write_flags, ..WriteIn::default() };
    assert_eq!(after(opcode::WRITE, write(4).as_bytes(), 0o6755), 0o755);
    assert_eq!(after(opcode::WRITE, write(4).as_bytes(), 0o4644), 0o644);
    if root {
        assert_eq!(after(opcode::WRITE, write(4).as_bytes(), 0o2744), 0o2744, "it is a mark for locks");
        assert_eq!(after(opcode::WRITE, write(0).as_bytes(), 0o6755), 0o6755);
    }
    let truncate = |more| SetattrIn { valid: setattr::SIZE | more, ..SetattrIn::default() };
    assert_eq!(after(opcode::SETATTR, truncate(setattr::KILL_SUIDGID).as_bytes(), 0o6755), 0o755);
    if root {
        assert_eq!(after(opcode::SETATTR, truncate(0).as_bytes(), 0o6755), 0o6755);
    }
    let open = OpenIn { flags: (libc::O_WRONLY | libc::O_TRUNC) as u32, open_flags: 1 };
    assert_eq!(after(opcode::OPEN, open.as_bytes(), 0o6755), 0o755);
    let allocate = FallocateIn { fh, length: 9, ..FallocateIn::default() };
    if root {
        assert_eq!(after(opcode::FALLOCATE, allocate.as_bytes(), 0o6755), 0o6755, "the process is root");
    }
}

#[test]
fn tmpfile_lives_until_it_is_closed_or_named() {
    let mut share = Share::new();
    let request = CreateIn { flags: libc::O_RDWR as u32, mode: 0o604, ..CreateIn::default() };
    let bytes = share.send(opcode::TMPFILE, ROOT, &[request.as_bytes(), b"/\0"], 4096).unwrap();
    let (entry, rest) = EntryOut::read_from_prefix(&bytes).unwrap();
    let fh = OpenOut::read_from_bytes(rest).unwrap().fh;
    share.write(fh, 3, b"abc").unwrap();
    // More files than descriptors are kept for.
    for number in 0..8 {
        fs::write(share.path(&format!("f{number}")), "").unwrap();
        share.lookup(ROOT, format!("f{number}").as_bytes()).unwrap();
    }
    let attributes = share.send(opcode::GETATTR, entry.nodeid, &[GetattrIn::default().as_bytes()], 4096).unwrap();
    let attr = AttrOut::read_from_bytes(&attributes).unwrap().attr;
    assert_eq!((attr.nlink, attr.size, attr.mode & 0o7777), (0, 3, 0o604));
    assert_eq!(share.lookup(ROOT, b"").unwrap_err(), Errno::INVAL);
    let link = LinkIn { oldnodeid: entry.nodeid };
    share.send(opcode::LINK, ROOT, &[link.as_bytes(), b"named\0"], 4096).unwrap();
    assert_eq!(fs::read(share.path("named")).unwrap(), b"abc");
    assert_eq!(share.lookup(ROOT, b"named").unwrap().nodeid, entry.nodeid);

    let mut read_only = Share::open(true, None);
    let refused = read_only.send(opcode::TMPFILE, ROOT, &[request.as_bytes(), b"/\0"], 4096);
    assert_eq!(refused.unwrap_err(), Errno::ROFS);
}

#[test]
fn directory_that_becomes_a_link_is_not_entered() {
    let mut share = Share::new();
    fs::create_dir_all(share.path("d/sub")).unwrap();
    let directory = share.lookup(ROOT, b"d").unwrap().nodeid;
    let sub = share.lookup(directory, b"sub").unwrap().nodeid;
    // More files than descriptors are kept for, so that it must be opened again.
    for number in 0..8 {
        fs::write(share.path(&format!("f{number}")), "").unwrap();
        share.lookup(ROOT, format!("f{number}").as_bytes()).unwrap();
    }
    fs::rename(share.path("d"), share.path("e")).unwrap();
    symlink("..", share.path("d")).unwrap();
    assert_eq!(share.lookup(sub, b"x").unwrap_err(), Errno::STALE);
    assert_eq!(share.lookup(directory, b"secret").unwrap_err(), Errno::STALE);
    let moved = share.lookup(ROOT, b"e").unwrap().nodeid;
    assert_eq!(moved, directory, "it is found at its new place");
    assert_eq!(share.lookup(sub, b"x").unwrap_err(), Errno::NOENT);
}

#[test]
fn read_only_share_refuses_every_change() {
    let mut share = Share::open(true, None);
    fs::write(share.path("a"), "kept").unwrap();
    let node = share.lookup(ROOT, b"a").unwrap().nodeid;
    for flags in [libc::O_WRONLY, libc::O_RDWR, libc::O_RDONLY | libc::O_TRUNC] {
        assert_eq!(share.open_file(node, flags).unwrap_err(), Errno::ROFS);
    }
    let fh = share.open_file(node, libc::O_RDONLY).unwrap();
    assert_eq!(share.read(fh, 9, 4096).unwrap(), b"kept");
    assert_eq!(share.write(fh, 1, b"x").unwrap_err(), Errno::ROFS);
    assert_eq!(share.create(ROOT, b"b").unwrap_err(), Errno::ROFS);
    let attributes = SetattrIn { valid: setattr::SIZE, ..SetattrIn::default() };
    let (xattr, allocate) = (SetxattrIn { size: 1, flags: 0 }, FallocateIn { fh, length: 9, ..FallocateIn::default() });
    let (mkdir, rename, link) = (MkdirIn::default(), RenameIn { newdir: ROOT }, LinkIn { oldnodeid: node });
    let mknod = MknodIn { mode: libc::S_IFREG, ..MknodIn::default() };
    let bodies: [(u32, u64, Vec<&[u8]>); 11] = [
        (opcode::SETATTR, node, vec![attributes.as_bytes()]),
        (opcode::SETXATTR, node, vec![xattr.as_bytes(), b"user.a\0x"]),
        (opcode::REMOVEXATTR, node, vec![b"user.a\0"]),
        (opcode::FALLOCATE, node, vec![allocate.as_bytes()]),
        (opcode::MKDIR, ROOT, vec![mkdir.as_bytes(), b"d\0"]),
        (opcode::MKNOD, ROOT, vec![mknod.as_bytes(), b"d\0"]),
        (opcode::SYMLINK, ROOT, vec![b"l\0t\0"]),
        (opcode::UNLINK, ROOT, vec![b"a\0"]),
        (opcode::RMDIR, ROOT, vec![b"a\0"]),
        (opcode::RENAME, ROOT, vec![rename.as_bytes(), b"a\0b\0"]),
        (opcode::LINK, ROOT, vec![link.as_bytes(), b"b\0"]),
    ];
    for (opcode, node, body) in bodies {
        assert_eq!(share.send(opcode, node, &body, 4096).unwrap_err(), Errno::ROFS, "{opcode}");
    }
    assert_eq!(fs::read(share.path("a")).unwrap(), b"kept");
}

#[test]
fn single_file_has_no_siblings() {
    let mut share = Share::open(false, Some("a"));
    fs::write(share.path("a"), "shown").unwrap();
    fs::write(share.path("b"), "hidden").unwrap();
    assert_eq!(share.lookup(ROOT, b"b").unwrap_err(), Errno::NOENT);
    assert_eq!(share.names(opcode::READDIR), [".", "..", "a"].map(str::to_owned).to_vec().sorted());
    assert_eq!(share.names(opcode::READDIRPLUS), share.names(opcode::READDIR));
    assert_eq!(share.create(ROOT, b"c").unwrap_err(), Errno::PERM);
    assert_eq!(share.create(ROOT, b"b").unwrap_err(), Errno::PERM);
    let rename = RenameIn { newdir: ROOT };
    let renamed = share.send(opcode::RENAME, ROOT, &[rename.as_bytes(), b"a\0b\0"], 4096);
    assert_eq!(renamed.unwrap_err(), Errno::PERM);
    let node = share.lookup(ROOT, b"a").unwrap().nodeid;
    let fh = share.open_file(node, libc::O_RDWR).unwrap();
    share.write(fh, 3, b"new").unwrap();
    assert_eq!(fs::read(share.path("a")).unwrap(), b"newwn");
}

trait Sorted {
    fn sorted(self) -> Self;
}

impl Sorted for Vec<String> {
    fn sorted(mut self) -> Self {
        self.sort();
        self
    }
}

#[test]
fn listing_has_every_entry_once() {
    let mut share = Share::new();
    let mut expected: Vec<String> = (0..300).map(|number| format!("file-{number}")).collect();
    expected.iter().for_each(|name| fs::write(share.path(name), "").unwrap());
    expected.extend([".".to_owned(), "..".to_owned()]);
    let expected = expected.sorted();
    assert_eq!(share.names(opcode::READDIR).sorted(), expected);
    assert_eq!(share.names(opcode::READDIRPLUS).sorted(), expected);
}

#[test]
fn tables_are_bounded_and_empty_after_they_are_forgotten() {
    let mut share = Share::new();
    share.server.inodes.set_max_bytes(10 * 300);
    let mut nodes = Vec::new();
    for number in 0..20 {
        fs::write(share.path(&format!("f{number}")), "").unwrap();
        match share.lookup(ROOT, format!("f{number}").as_bytes()) {
            Ok(entry) => nodes.push(entry.nodeid),
            Err(error) => assert_eq!(error, Errno::NOMEM),
        }
    }
    assert_eq!((nodes.len(), share.server.inodes.len()), (11, 11));
    let open = (0..20).map(|_| share.open_file(nodes[0], libc::O_RDONLY)).collect::<Vec<_>>();
    assert_eq!(open.iter().filter(|handle| handle.is_ok()).count(), 8);
    assert_eq!(*open.last().unwrap(), Err(Errno::NFILE));
    let release = ReleaseIn { fh: open[0].unwrap(), ..ReleaseIn::default() };
    share.send(opcode::RELEASE, nodes[0], &[release.as_bytes()], 64).unwrap();
    assert_eq!(share.send(opcode::RELEASE, nodes[0], &[release.as_bytes()], 64).unwrap_err(), Errno::BADF);

    // One by one, and more often than they were looked up, which changes nothing.
    let batch = BatchForgetIn { count: u32::MAX, padding: 0 };
    let forgets: Vec<ForgetOne> = nodes.iter().map(|&nodeid| ForgetOne { nodeid, nlookup: u64::MAX }).collect();
    let header = InHeader { opcode: opcode::BATCH_FORGET, ..InHeader::default() };
    let bytes = [header.as_bytes(), batch.as_bytes(), forgets.as_bytes(), &[1; 5]].concat();
    assert_eq!(share.raw(&bytes, 64), b"", "it has no answer");
    assert_eq!(share.server.inodes.len(), 0);
    assert_eq!(share.lookup(nodes[0], b"x").unwrap_err(), Errno::STALE);
}

#[test]
fn only_regular_files_are_opened_and_no_device_is_made() {
    let mut share = Share::new();
    let make = |share: &mut Share, mode, name: &[u8]| {
        let request = MknodIn { mode: mode | 0o666, rdev: 0x103, ..MknodIn::default() };
        share.send(opcode::MKNOD, ROOT, &[request.as_bytes(), name, b"\0"], 4096)
    };
    for kind in [libc::S_IFCHR, libc::S_IFBLK, libc::S_IFDIR, libc::S_IFLNK, 0] {
        assert_eq!(make(&mut share, kind, b"node").unwrap_err(), Errno::PERM);
    }
    // To open it would wait for a writer.
    let fifo = EntryOut::read_from_bytes(&make(&mut share, libc::S_IFIFO, b"fifo").unwrap()).unwrap().nodeid;
    assert_eq!(share.open_file(fifo, libc::O_RDONLY).unwrap_err(), Errno::ACCESS);
    let request = CreateIn { flags: libc::O_RDONLY as u32, ..CreateIn::default() };
    let created = share.send(opcode::CREATE, ROOT, &[request.as_bytes(), b"fifo\0"], 4096);
    assert_eq!(created.unwrap_err(), Errno::ACCESS);
}

#[test]
fn only_user_attributes_pass() {
    let mut share = Share::new();
    let (node, _) = share.create(ROOT, b"a").unwrap();
    let set = SetxattrIn { size: 3, flags: 0 };
    for name in [&b"security.capability\0"[..], b"trusted.a\0", b"system.posix_acl_access\0", b"a\0"] {
        let outcome = share.send(opcode::SETXATTR, node, &[set.as_bytes(), name, b"abc"], 64);
        assert_eq!(outcome.unwrap_err(), Errno::OPNOTSUPP);
    }
    let huge = SetxattrIn { size: u32::MAX, flags: 0 };
    let outcome = share.send(opcode::SETXATTR, node, &[huge.as_bytes(), b"user.a\0abc"], 64);
    assert_eq!(outcome.unwrap_err(), Errno::INVAL);
}

#[test]
fn invalid_requests_are_errors() {
    let mut share = Share::new();
    let (node, fh) = share.create(ROOT, b"a").unwrap();
    assert_eq!(share.raw(&[0; 39], 64), b"", "no header");
    assert_eq!(share.send(0, ROOT, &[], 64).unwrap_err(), Errno::NOSYS);
    assert_eq!(share.send(u32::MAX, ROOT, &[], 64).unwrap_err(), Errno::NOSYS);
    for opcode in (1..60).filter(|opcode| !matches!(opcode, 2 | 36 | 42)) {
        // Without a body, with one byte, and with a number that is not in use.
        for node in [ROOT, node, 0, 12345] {
            let _ = share.send(opcode, node, &[], 16);
            let _ = share.send(opcode, node, &[&[0xff]], 4096);
            let _ = share.send(opcode, node, &[&[0xff; 200]], 4096);
        }
    }
    assert_eq!(share.send(opcode::GETATTR, 12345, &[GetattrIn::default().as_bytes()], 4096).unwrap_err(), Errno::STALE);
    assert_eq!(share.write(fh, 100, b"short").unwrap_err(), Errno::INVAL);
    assert_eq!(share.write(fh + 1, 1, b"x").unwrap_err(), Errno::BADF);
    share.write(fh, 6, b"abcdef").unwrap();
    assert_eq!(share.read(fh, u32::MAX, 16 + 4).unwrap(), b"abcd", "no more than there is space for");
    let large = vec![0; 80 << 10];
    assert_eq!(share.send(opcode::LOOKUP, ROOT, &[&large], 64).unwrap_err(), Errno::TOOBIG);
    // An answer without space is an error, and one without space for that is empty.
    assert_eq!(share.send(opcode::LOOKUP, ROOT, &[b"a\0"], 64).unwrap_err(), Errno::IO);
    let header = InHeader { opcode: opcode::STATFS, nodeid: ROOT, ..InHeader::default() };
    assert_eq!(share.raw(header.as_bytes(), 15), b"");
}

#[test]
fn version_is_negotiated() {
    let mut share = Share::new();
    let mut init = |major, minor| {
        let request = InitIn { major, minor, max_readahead: u32::MAX, flags: u32::MAX };
        share.send(opcode::INIT, 0, &[request.as_bytes()], 4096).map(|bytes| InitOut::read_from_bytes(&bytes).unwrap())
    };
    let answer = init(7, 41).unwrap();
    assert_eq!((answer.major, answer.minor, answer.max_pages), (wire::MAJOR, wire::MINOR, 256));
    assert_eq!(init(7, 30).unwrap_err(), Errno::PROTO);
    assert_eq!(init(8, 0).unwrap().major, 7);
}

#[test]
fn new_file_belongs_to_the_process_that_made_it_or_to_the_caller() {
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid().as_raw());
    let owner = if user.is_root() { (1234, 567) } else { (user.as_raw(), group) };
    let mut share = Share::new();
    let header = InHeader { opcode: opcode::MKDIR, nodeid: ROOT, uid: 1234, gid: 567, ..InHeader::default() };
    let mkdir = MkdirIn { mode: 0o1777, umask: 0 };
    share.raw(&[header.as_bytes(), mkdir.as_bytes(), b"d\0"].concat(), 4096);
    let status = fs::metadata(share.path("d")).unwrap();
    assert_eq!(((status.uid(), status.gid()), status.mode() & 0o7777), (owner, 0o1777));
}

#[test]
fn closed_directory_is_a_mount_point_and_nothing_else() {
    let mut share = Share::new();
    fs::rename(share._outside.path().join("closed"), share.path("closed")).unwrap();
    fs::create_dir(share.path("closed/inner")).unwrap();
    fs::write(share.path("closed/file"), "secret").unwrap();
    let closed = share.lookup(ROOT, b"closed").unwrap();
    assert_eq!((closed.attr.mode, closed.attr.uid, closed.attr.ino), (libc::S_IFDIR | 0o555, 0, 0));
    let node = closed.nodeid;
    let attributes = share.send(opcode::GETATTR, node, &[GetattrIn::default().as_bytes()], 4096).unwrap();
    assert_eq!(AttrOut::read_from_bytes(&attributes).unwrap().attr.mode, libc::S_IFDIR | 0o555);
    let opened = share.send(opcode::OPENDIR, node, &[OpenIn::default().as_bytes()], 4096);
    assert_eq!(opened.unwrap_err(), Errno::ACCESS);
    for name in [&b"file"[..], b"inner", b"none"] {
        assert_eq!(share.lookup(node, name).unwrap_err(), Errno::ACCESS);
        assert_eq!(share.send(opcode::UNLINK, node, &[name, b"\0"], 4096).unwrap_err(), Errno::ACCESS);
    }
    assert_eq!(share.create(node, b"new").unwrap_err(), Errno::ACCESS);
    let change = SetattrIn { valid: setattr::MODE, mode: 0o777, ..SetattrIn::default() };
    assert_eq!(share.send(opcode::SETATTR, node, &[change.as_bytes()], 4096).unwrap_err(), Errno::ACCESS);
    assert!(share.names(opcode::READDIRPLUS).contains(&"closed".to_owned()));
    assert_eq!(fs::read_dir(share.path("closed")).unwrap().count(), 2);
}

#[test]
fn kernel_file_systems_cannot_be_shared() {
    let open = |path: &Path| {
        let directory = File::open(path).unwrap().into();
        Fs::open(FsConfig {
            tag: "t".to_owned(),
            directory,
            only: None,
            read_only: true,
            max_descriptors: 16,
            closed: [].into(),
        })
    };
    assert!(open(Path::new("/proc")).unwrap_err().to_string().contains("cannot be shared"));
    assert!(open(&std::env::temp_dir()).is_ok());
}
