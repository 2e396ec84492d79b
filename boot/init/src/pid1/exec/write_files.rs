// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The process that writes files into the workload's root (`coracle cp`). A child of PID 1's in the
//! workload's namespaces, as root, that executes nothing: the image need not have `tar`. What it
//! writes comes from its standard input, in the form of [`guest_protocol::files`]. Paths are resolved
//! in the workload's root, where no symbolic link leads out of it.

use super::super::files::write_all;
use crate::freestanding::system_call::exit;
use crate::freestanding::{stdin, stdout};
use alloc::borrow::ToOwned;
use alloc::ffi::CString;
use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::CStr;
use core::mem::MaybeUninit;
use guest_init::copy_target::{self, Target, There, below};
use guest_protocol::files::{Destination, EntryKind, FileEntry, FileMessage, MAX_FILE_FRAME, WriteFailure};
use guest_protocol::protocol::{FrameReader, encode};
use rustix::fd::OwnedFd;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, SeekFrom, Timespec, Timestamps, XattrFlags, chmodat, chownat, ftruncate,
    linkat, lsetxattr, lstat, makedev, mkdir, mknodat, open, readlink, seek, stat, symlinkat, tell, unlink, utimensat,
};
use rustix::io::{Errno, read, write};
use rustix::process::{Gid, Uid, chdir, umask};

const READ_BUF_SIZE: usize = 16 << 10;
/// Symbolic links followed at the end of the destination: the limit of Linux.
const MAX_LINKS: u32 = 40;
/// Owner and mode of a directory that an archive does not have.
const IMPLIED_MODE: Mode = Mode::from_raw_mode(0o755);

/// Writes the files of standard input, and ends the process.
pub(super) fn run() -> ! {
    umask(Mode::empty());
    let written = chdir("/").map_err(|errno| failure(b"/", errno)).and_then(|()| write_input());
    let Err(failure) = written else { exit(0) };
    let frame = encode(&failure);
    let mut rest = &frame[..];
    while let Ok(length @ 1..) = write(stdout(), rest) {
        rest = &rest[length..];
    }
    exit(1)
}

fn write_input() -> Result<(), WriteFailure> {
    let mut reader = FrameReader::new(MAX_FILE_FRAME);
    let mut writer = None;
    let mut bytes = [MaybeUninit::<u8>::uninit(); READ_BUF_SIZE];
    loop {
        while let Some(message) = reader.next().map_err(|_| fault(b"", "invalid message"))? {
            match (message, &mut writer) {
                (FileMessage::Begin(destination), None) => writer = Some(Writer::begin(destination)?),
                (FileMessage::File(entry), Some(writer)) => writer.file(entry)?,
                (FileMessage::Data(data), Some(writer)) => writer.data(&data)?,
                (FileMessage::Hole(size), Some(writer)) => writer.hole(size)?,
                (FileMessage::End, Some(writer)) => return writer.finish(),
                _ => return Err(fault(b"", "unexpected message")),
            }
        }
        match read(stdin(), &mut bytes) {
            Ok(([], _)) => return Err(fault(b"", "the files were cut off")),
            Ok((bytes, _)) => reader.push(bytes),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(failure(b"", errno)),
        }
    }
}

struct Writer {
    target: Target,
    file: Option<NewFile>,
    /// New directories. They get their attributes when what is in them is written.
    directories: Vec<(CString, FileEntry)>,
}

struct NewFile {
    file: OwnedFd,
    path: CString,
    entry: FileEntry,
}

impl Writer {
    fn begin(destination: Destination) -> Result<Self, WriteFailure> {
        let path = follow(below(&destination.path, b""))?;
        // A slash at its end means a directory.
        let slash: &[u8] =
            if destination.path.ends_with(b"/") || destination.path.ends_with(b"/.") { b"/" } else { b"" };
        let there = match stat(&*string(&path)?) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => There::Directory,
            Ok(_) => There::Other,
            Err(Errno::NOENT) => There::Missing,
            Err(errno) => return Err(failure(&path, errno)),
        };
        let resolved = Destination { path: [&path[..], slash].concat(), source: destination.source };
        let target = copy_target::target(&resolved, there).map_err(|what| fault(&destination.path, what))?;
        Ok(Self { target, file: None, directories: Vec::new() })
    }

    fn file(&mut self, entry: FileEntry) -> Result<(), WriteFailure> {
        self.end_file()?;
        if entry.path.is_empty() && self.target.is_there {
            return Ok(());
        }
        let path = string(&below(&self.target.path, &entry.path))?;
        let made = self.make(&path, entry);
        made.map_err(|error| match error {
            MakeError::Fault(what) => fault(path.to_bytes(), what),
            MakeError::System(errno) => failure(path.to_bytes(), errno),
        })
    }

    fn make(&mut self, path: &CStr, entry: FileEntry) -> Result<(), MakeError> {
        let is_directory = entry.kind == EntryKind::Directory;
        match lstat(path).map(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory) {
            Ok(true) if is_directory => return Ok(()),
            Ok(true) => return Err(MakeError::Fault("a directory, and the source is none")),
            Ok(false) if is_directory => return Err(MakeError::Fault("not a directory, and the source is one")),
            Ok(false) => unlink(path)?,
            // Only an archive may leave out the directory of a file.
            Err(Errno::NOENT) if !entry.path.is_empty() => make_parents(path.to_bytes())?,
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        match &entry.kind {
            EntryKind::Directory => {
                mkdir(path, Mode::RWXU)?;
                self.directories.push((path.to_owned(), entry));
                return Ok(());
            }
            EntryKind::Regular => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = open(path, flags, Mode::RUSR | Mode::WUSR)?;
                self.file = Some(NewFile { file, path: path.to_owned(), entry });
                return Ok(());
            }
            EntryKind::HardLink(first) => {
                let first = CString::new(below(&self.target.path, first)).map_err(|_| Errno::INVAL)?;
                return Ok(linkat(CWD, &*first, CWD, path, AtFlags::empty())?);
            }
            EntryKind::Symlink(link) => symlinkat(&**link, CWD, path)?,
            EntryKind::Fifo => mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0)?,
            EntryKind::CharacterDevice(major, minor) => {
                mknodat(CWD, path, FileType::CharacterDevice, Mode::RWXU, makedev(*major, *minor))?;
            }
            EntryKind::BlockDevice(major, minor) => {
                mknodat(CWD, path, FileType::BlockDevice, Mode::RWXU, makedev(*major, *minor))?;
            }
        }
        Ok(set_attributes(path, &entry)?)
    }

    fn data(&mut self, bytes: &[u8]) -> Result<(), WriteFailure> {
        let Some(NewFile { file, path, .. }) = &self.file else { return Err(fault(b"", "data without a file")) };
        write_all(file, bytes).map_err(|errno| failure(path.to_bytes(), errno))
    }

    fn hole(&mut self, size: u64) -> Result<(), WriteFailure> {
        let Some(NewFile { file, path, .. }) = &self.file else { return Err(fault(b"", "data without a file")) };
        let size = i64::try_from(size).map_err(|_| failure(path.to_bytes(), Errno::FBIG))?;
        seek(file, SeekFrom::Current(size)).map(drop).map_err(|errno| failure(path.to_bytes(), errno))
    }

    /// Completes the last regular file.
    fn end_file(&mut self) -> Result<(), WriteFailure> {
        let Some(NewFile { file, path, entry }) = self.file.take() else { return Ok(()) };
        let end = || {
            ftruncate(&file, tell(&file)?)?;
            drop(file);
            set_attributes(&path, &entry)
        };
        end().map_err(|errno| failure(path.to_bytes(), errno))
    }

    fn finish(&mut self) -> Result<(), WriteFailure> {
        self.end_file()?;
        // A directory's times change with its entries.
        for (path, entry) in self.directories.iter().rev() {
            set_attributes(path, entry).map_err(|errno| failure(path.to_bytes(), errno))?;
        }
        Ok(())
    }
}

enum MakeError {
    Fault(&'static str),
    System(Errno),
}

impl From<Errno> for MakeError {
    fn from(errno: Errno) -> Self {
        Self::System(errno)
    }
}

/// The owner first: its change clears set-user-id bits and capabilities.
fn set_attributes(path: &CStr, entry: &FileEntry) -> Result<(), Errno> {
    let (user, group) = (Uid::from_raw(entry.user), Gid::from_raw(entry.group));
    chownat(CWD, path, Some(user), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
    if !matches!(entry.kind, EntryKind::Symlink(_)) {
        chmodat(CWD, path, Mode::from_raw_mode(entry.mode.into()), AtFlags::empty())?;
    }
    for (name, value) in &entry.attributes {
        match lsetxattr(path, &**name, value, XattrFlags::empty()) {
            // The file system has none.
            Err(Errno::OPNOTSUPP) => {}
            outcome => outcome?,
        }
    }
    let time = Timespec { tv_sec: entry.seconds, tv_nsec: entry.nanoseconds.into() };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
}

/// Follows symbolic links at the end of `path`, as far as they lead. The kernel follows those before.
fn follow(mut path: Vec<u8>) -> Result<Vec<u8>, WriteFailure> {
    for _ in 0..MAX_LINKS {
        let Ok(link) = readlink(&*string(&path)?, Vec::new()) else { return Ok(path) };
        let link = link.to_bytes();
        let parent = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        path = match link.first() {
            Some(b'/') => link.to_owned(),
            _ => [&path[..parent], b"/", link].concat(),
        };
    }
    Err(failure(&path, Errno::LOOP))
}

/// Makes the directories above `path` that are missing.
fn make_parents(path: &[u8]) -> Result<(), Errno> {
    for (at, _) in path.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/') {
        let parent = CString::new(&path[..at]).map_err(|_| Errno::INVAL)?;
        match mkdir(&*parent, IMPLIED_MODE) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn string(path: &[u8]) -> Result<CString, WriteFailure> {
    CString::new(path).map_err(|_| fault(path, "a zero byte is in its path"))
}

fn failure(path: &[u8], errno: Errno) -> WriteFailure {
    WriteFailure { path: path.to_owned(), fault: String::new(), errno: errno.raw_os_error() }
}

fn fault(path: &[u8], fault: &str) -> WriteFailure {
    WriteFailure { path: path.to_owned(), fault: fault.to_owned(), errno: 0 }
}
