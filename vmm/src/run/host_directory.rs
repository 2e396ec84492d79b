// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Writes files of a machine into a directory of the host. Their names and links come from the guest: each path is resolved below that
//! directory, and the kernel follows no symbolic link in it (`openat2`). The files belong to the caller, without set-id bits and
//! extended attributes; devices and FIFOs are left out.

use oci_image::{Entry, EntryKind, FileSink, Time};
use rustix::fs::{
    self, AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT, fchmod, futimens, linkat,
    mkdirat, openat, openat2, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

const PERMISSIONS: u16 = 0o777;

/// The directory, and what is being written into it.
#[derive(Debug)]
pub(super) struct HostDirectory {
    root: OwnedFd,
    /// New directories above the current file: what is read-only is filled first.
    open: Vec<NewDirectory>,
    file: Option<NewFile>,
    left_out: Option<LeftOut>,
}

#[derive(Debug)]
struct NewDirectory {
    path: PathBuf,
    mode: u16,
    modified: Time,
}

#[derive(Debug)]
struct NewFile {
    file: File,
    path: PathBuf,
    mode: u16,
    modified: Time,
}

/// Devices and FIFOs.
#[derive(Clone, Debug)]
pub(super) struct LeftOut {
    pub(super) first: PathBuf,
    pub(super) count: u64,
}

#[derive(Debug, thiserror::Error)]
#[error("{}", path.display())]
struct PathError {
    path: PathBuf,
    source: io::Error,
}

fn failed(path: &Path) -> impl FnOnce(Errno) -> io::Error {
    let path = path.to_owned();
    move |errno| {
        let source = match errno {
            Errno::LOOP => io::Error::other("a symbolic link is in its path"),
            errno => errno.into(),
        };
        io::Error::other(PathError { path, source })
    }
}

impl HostDirectory {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let root = fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { root, open: Vec::new(), file: None, left_out: None })
    }

    /// Gives the last directories their modes and times.
    pub(super) fn finish(mut self) -> io::Result<Option<LeftOut>> {
        self.leave(Path::new(""))?;
        Ok(self.left_out)
    }

    /// A directory below the root.
    fn directory(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = flags | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat2(&self.root, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
    }

    /// Completes the directories that `path` is not in.
    fn leave(&mut self, path: &Path) -> io::Result<()> {
        while let Some(last) = self.open.pop_if(|last| !path.starts_with(&last.path)) {
            let complete = || -> Result<(), Errno> {
                let directory = self.directory(&last.path, OFlags::RDONLY)?;
                set_attributes(&directory, last.mode, last.modified)
            };
            complete().map_err(failed(&last.path))?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry, path: &Path, name: &OsStr) -> Result<(), Errno> {
        let parent = self.directory(path.parent().unwrap_or(Path::new("")), OFlags::PATH)?;
        let (mode, modified) = (entry.mode, entry.mtime);
        match entry.kind {
            EntryKind::Directory => match mkdirat(&parent, name, Mode::RWXU) {
                Err(Errno::EXIST) if is_directory(&parent, name)? => {}
                made => {
                    made?;
                    self.open.push(NewDirectory { path: path.to_owned(), mode, modified });
                }
            },
            EntryKind::Regular => {
                remove(&parent, name)?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = openat(&parent, name, flags, Mode::RUSR | Mode::WUSR)?.into();
                self.file = Some(NewFile { file, path: path.to_owned(), mode, modified });
            }
            EntryKind::Symlink => {
                remove(&parent, name)?;
                symlinkat(OsStr::from_bytes(&entry.link), &parent, name)?;
                utimensat(&parent, name, &timestamps(modified), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            EntryKind::HardLink => {
                let target = Path::new(OsStr::from_bytes(&entry.link));
                let directory = self.directory(target.parent().unwrap_or(Path::new("")), OFlags::PATH)?;
                remove(&parent, name)?;
                linkat(&directory, target.file_name().ok_or(Errno::INVAL)?, &parent, name, AtFlags::empty())?;
            }
            EntryKind::CharacterDevice | EntryKind::BlockDevice | EntryKind::Fifo => {
                let left_out = self.left_out.get_or_insert_with(|| LeftOut { first: path.to_owned(), count: 0 });
                left_out.count += 1;
            }
        }
        Ok(())
    }
}

impl FileSink for HostDirectory {
    fn file(&mut self, entry: &Entry) -> io::Result<()> {
        // Without a slash at its end.
        let path: PathBuf = Path::new(OsStr::from_bytes(&entry.path)).components().collect();
        self.leave(&path)?;
        match path.file_name() {
            Some(name) => self.entry(entry, &path, name).map_err(failed(&path)),
            // The directory itself.
            None => Ok(()),
        }
    }

    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(NewFile { file, .. }) = &mut self.file else { return Ok(()) };
        // What is all zeroes becomes a hole.
        match bytes.iter().all(|byte| *byte == 0) {
            true => file.seek(SeekFrom::Current(bytes.len() as i64)).map(drop),
            false => file.write_all(bytes),
        }
    }

    fn end(&mut self, size: u64) -> io::Result<()> {
        let Some(NewFile { file, path, mode, modified }) = self.file.take() else { return Ok(()) };
        file.set_len(size)?;
        set_attributes(&file, mode, modified).map_err(failed(&path))
    }
}

fn is_directory(parent: &OwnedFd, name: &OsStr) -> Result<bool, Errno> {
    let there = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(there.st_mode) == FileType::Directory)
}

/// Removes what has the name, unless it is a directory.
fn remove(parent: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        removed => removed,
    }
}

fn set_attributes(file: impl AsFd, mode: u16, modified: Time) -> Result<(), Errno> {
    fchmod(&file, Mode::from_raw_mode((mode & PERMISSIONS).into()))?;
    futimens(&file, &timestamps(modified))
}

fn timestamps(modified: Time) -> Timestamps {
    let modified = Timespec { tv_sec: modified.seconds, tv_nsec: modified.nanoseconds.into() };
    Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, last_modification: modified }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    fn entry(kind: EntryKind, path: &str, mode: u16, content: &str) -> Entry {
        let mtime = Time { seconds: 1_700_000_000, nanoseconds: 5 };
        let (path, size) = (path.into(), content.len() as u64);
        Entry { kind, mode, mtime, ..Entry::regular(path, size) }
    }

    fn write(directory: &Path, entries: &[(Entry, &str)]) -> io::Result<Option<LeftOut>> {
        let mut sink = HostDirectory::open(directory)?;
        for (entry, content) in entries {
            sink.file(entry)?;
            if entry.kind == EntryKind::Regular {
                sink.data(content.as_bytes())?;
                sink.end(entry.size)?;
            }
        }
        sink.finish()
    }

    fn link(kind: EntryKind, path: &str, target: &str) -> (Entry, &'static str) {
        (Entry { link: target.into(), ..entry(kind, path, 0o777, "") }, "")
    }

    #[test]
    fn files_have_their_modes_and_times() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let written = write(
            directory.path(),
            &[
                (entry(EntryKind::Directory, "d/", 0o2555, ""), ""),
                (entry(EntryKind::Regular, "d/file", 0o4640, "text"), "text"),
                (entry(EntryKind::Directory, "d/sub/", 0o700, ""), ""),
                link(EntryKind::Symlink, "d/sub/link", "../../etc"),
                link(EntryKind::HardLink, "d/sub/hard", "d/file"),
                (entry(EntryKind::Fifo, "d/fifo", 0o600, ""), ""),
                (entry(EntryKind::CharacterDevice, "d/null", 0o600, ""), ""),
                (entry(EntryKind::Regular, "zeroes", 0o600, "\0\0\0\0"), "\0\0\0\0"),
            ],
        );
        let left_out = written.unwrap().unwrap();
        assert_eq!((left_out.first, left_out.count), ("d/fifo".into(), 2));
        let of = |name: &str| fs::symlink_metadata(path(name)).unwrap();
        for (name, mode) in [("d", 0o40555), ("d/file", 0o100640), ("d/sub", 0o40700), ("zeroes", 0o100600)] {
            assert_eq!((of(name).mode(), of(name).mtime(), of(name).mtime_nsec()), (mode, 1_700_000_000, 5), "{name}");
        }
        assert_eq!((of("d/file").nlink(), fs::read(path("d/sub/hard")).unwrap()), (2, b"text".to_vec()));
        assert_eq!(fs::read_link(path("d/sub/link")).unwrap(), Path::new("../../etc"));
        assert_eq!(fs::read(path("zeroes")).unwrap(), [0; 4]);
        fs::set_permissions(path("d"), Permissions::from_mode(0o700)).unwrap();
    }

    #[test]
    fn symbolic_links_are_replaced_and_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("file"), "outside").unwrap();
        symlink(outside.path(), directory.path().join("d")).unwrap();
        symlink(outside.path().join("file"), directory.path().join("file")).unwrap();
        write(directory.path(), &[(entry(EntryKind::Regular, "file", 0o600, "new"), "new")]).unwrap();
        assert_eq!(fs::read(directory.path().join("file")).unwrap(), b"new");
        for (entries, object) in [
            (vec![(entry(EntryKind::Regular, "d/file", 0o600, "x"), "x")], "d/file"),
            (vec![(entry(EntryKind::Directory, "d/", 0o700, ""), "")], "d"),
            (vec![link(EntryKind::HardLink, "hard", "d/file")], "hard"),
            (vec![(entry(EntryKind::Regular, "../x", 0o600, "x"), "x")], "../x"),
        ] {
            let error = write(directory.path(), &entries).unwrap_err();
            assert_eq!(error.to_string(), object);
        }
        assert_eq!(fs::read(outside.path().join("file")).unwrap(), b"outside");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    }
}
