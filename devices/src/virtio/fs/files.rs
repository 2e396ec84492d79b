// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Operations on open files. The data of READ and WRITE moves between guest memory and file without a copy here.

use super::super::chain::Chain;
use super::super::guest_io;
use super::host_file::{clear_set_id, open_at, own_path};
use super::request::Body;
use super::server::{Answer, MAX_DATA_SIZE, Server};
use super::wire::{
    CreateIn, EntryOut, FallocateIn, FsyncIn, InHeader, LseekIn, LseekOut, OpenIn, OpenOut, OutHeader, ReadIn,
    ReleaseIn, WriteIn, WriteOut,
};
use rustix::fs::{FallocateFlags, Mode, OFlags, SeekFrom, fallocate, fchmod, fdatasync, fsync, open, seek, syncfs};
use rustix::io::Errno;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::Ordering;
use zerocopy::{FromZeros, IntoBytes};

const FSYNC_DATA_ONLY: u32 = 1;
/// Of a WRITE: pages of the guest's cache, which have a place in the file, whichever open file they are sent through.
const WRITE_CACHE: u32 = 1;
/// Of a WRITE: the process has no `CAP_FSETID`.
const WRITE_KILL_SUIDGID: u32 = 1 << 2;
/// The same, of an OPEN or CREATE that truncates.
const OPEN_KILL_SUIDGID: u32 = 1;
/// Flags of the guest's `open` that are passed on. The host's open file never blocks. Whether it appends is a
/// matter of each WRITE: the guest can change that of an open file, and sends pages through any.
const OPEN_FLAGS: OFlags = OFlags::ACCMODE.union(OFlags::TRUNC).union(OFlags::SYNC);

fn host_flags(flags: u32) -> OFlags {
    OFlags::from_bits_retain(flags) & OPEN_FLAGS | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC
}

fn host_error(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}

impl Server {
    pub(super) fn open_file(&mut self, node: u64, body: &mut Body<'_>) -> Result<Answer, Errno> {
        let OpenIn { flags, open_flags } = body.take()?;
        let file = self.open_regular(node, host_flags(flags))?;
        if open_flags & OPEN_KILL_SUIDGID != 0 && flags & libc::O_TRUNC as u32 != 0 {
            clear_set_id(&file)?;
        }
        let fh = self.handles.insert(node, false, file)?;
        Ok(Answer::of(&OpenOut { fh, ..OpenOut::default() }))
    }

    /// FIFOs, sockets and devices are the guest's own: to open one here could block, or reach a device.
    fn open_regular(&mut self, node: u64, flags: OFlags) -> Result<OwnedFd, Errno> {
        if flags & OFlags::ACCMODE != OFlags::RDONLY || flags.contains(OFlags::TRUNC) {
            self.export.check_writable()?;
        }
        if !self.inodes.key(node)?.is(libc::S_IFREG) {
            return Err(Errno::ACCESS);
        }
        self.handles.check_space()?;
        open(own_path(&*self.open_path(node)?), flags, Mode::empty())
    }

    pub(super) fn create(&mut self, header: &InHeader, body: &mut Body<'_>) -> Result<Answer, Errno> {
        let CreateIn { flags, mode, .. } = body.take()?;
        let name = body.name()?;
        self.handles.check_space()?;
        let directory = self.open_to_change(header.nodeid)?;
        let new = OFlags::CREATE | OFlags::EXCL | host_flags(flags);
        let made = match open_at(&directory, &name, new, Mode::from_raw_mode(mode & 0o777)) {
            Ok(file) => {
                self.give_to_owner(header, &directory, &file)?;
                fchmod(&file, Mode::from_raw_mode(mode & 0o7777))?;
                Some(file)
            }
            // Another process was faster.
            Err(Errno::EXIST) if flags & libc::O_EXCL as u32 == 0 => None,
            Err(error) => return Err(error),
        };
        let entry = self.entry(header.nodeid, &directory, &name)?;
        let file = made.map_or_else(|| self.open_regular(entry.nodeid, host_flags(flags)), Ok);
        self.answer_created(&entry, file)
    }

    fn answer_created(&mut self, entry: &EntryOut, file: Result<OwnedFd, Errno>) -> Result<Answer, Errno> {
        let handle = file.and_then(|file| self.handles.insert(entry.nodeid, false, file));
        // The guest does not learn of the file if it gets no handle.
        let fh = handle.inspect_err(|_| self.inodes.forget(entry.nodeid, 1))?;
        let opened = OpenOut { fh, ..OpenOut::default() };
        Ok(Answer::Bytes([entry.as_bytes(), opened.as_bytes()].concat()))
    }

    /// `O_TMPFILE`: a file without a name, until LINK gives it one. The name in the request has no meaning.
    pub(super) fn create_unnamed(&mut self, header: &InHeader, body: &mut Body<'_>) -> Result<Answer, Errno> {
        let CreateIn { flags, mode, .. } = body.take()?;
        self.handles.check_space()?;
        let directory = self.open_to_change(header.nodeid)?;
        let exclusive = OFlags::from_bits_retain(flags) & OFlags::EXCL;
        let new = OFlags::TMPFILE | exclusive | host_flags(flags) & !OFlags::TRUNC;
        let file = open(own_path(&directory), new, Mode::from_raw_mode(mode & 0o777))?;
        self.give_to_owner(header, &directory, &file)?;
        fchmod(&file, Mode::from_raw_mode(mode & 0o7777))?;
        let path = open(own_path(&file), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        // No lookup finds the empty name: once its descriptor is not kept, the file is reached by what has it open.
        let entry = self.known(header.nodeid, c"", path)?;
        self.answer_created(&entry, Ok(file))
    }

    pub(super) fn read(&mut self, chain: &mut Chain<'_>) -> Result<Answer, Errno> {
        let mut request = ReadIn::new_zeroed();
        chain.readable.read_exact(request.as_mut_bytes()).map_err(|_| Errno::INVAL)?;
        let file = self.handles.file(request.fh)?;
        chain.writable.skip(size_of::<OutHeader>());
        let mut data = chain.writable.clone();
        let _ = data.split_off(request.size.min(MAX_DATA_SIZE) as usize);
        let moved = guest_io::read_until_end_at(file.as_fd(), request.offset, &mut data);
        let moved = moved.map_err(|error| host_error(&error))?;
        chain.writable.skip(moved);
        self.export.counters.read_bytes.fetch_add(moved as u64, Ordering::Relaxed);
        Ok(Answer::Moved(moved))
    }

    pub(super) fn write(&mut self, chain: &mut Chain<'_>) -> Result<Answer, Errno> {
        let mut request = WriteIn::new_zeroed();
        chain.readable.read_exact(request.as_mut_bytes()).map_err(|_| Errno::INVAL)?;
        self.export.check_writable()?;
        let file = self.handles.file(request.fh)?;
        let size = request.size as usize;
        if request.size > MAX_DATA_SIZE || size > chain.readable.remaining() {
            return Err(Errno::INVAL);
        }
        let _ = chain.readable.split_off(size);
        let appends = request.flags & libc::O_APPEND as u32 != 0 && request.write_flags & WRITE_CACHE == 0;
        let written = match appends {
            true => guest_io::append_all(file.as_fd(), &mut chain.readable),
            false => guest_io::write_all_at(file.as_fd(), request.offset, &mut chain.readable),
        };
        written.map_err(|error| host_error(&error))?;
        if request.write_flags & WRITE_KILL_SUIDGID != 0 {
            clear_set_id(&file)?;
        }
        self.export.counters.write_bytes.fetch_add(size as u64, Ordering::Relaxed);
        Ok(Answer::of(&WriteOut { size: request.size, padding: 0 }))
    }

    pub(super) fn release(&mut self, body: &mut Body<'_>) -> Result<Answer, Errno> {
        let ReleaseIn { fh, .. } = body.take()?;
        self.handles.remove(fh)?;
        Ok(Answer::EMPTY)
    }

    pub(super) fn sync(&mut self, body: &mut Body<'_>, is_directory: bool) -> Result<Answer, Errno> {
        let FsyncIn { fh, flags, .. } = body.take()?;
        let file = if is_directory { self.handles.directory(fh)? } else { self.handles.file(fh)? };
        if flags & FSYNC_DATA_ONLY != 0 {
            fdatasync(file)?
        } else {
            fsync(file)?
        }
        Ok(Answer::EMPTY)
    }

    pub(super) fn sync_file_system(&mut self) -> Result<Answer, Errno> {
        // The descriptor of the export may be `O_PATH`.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        syncfs(open(own_path(&self.export.directory), flags, Mode::empty())?)?;
        Ok(Answer::EMPTY)
    }

    pub(super) fn allocate(&mut self, header: &InHeader, body: &mut Body<'_>) -> Result<Answer, Errno> {
        let FallocateIn { fh, offset, length, mode, .. } = body.take()?;
        self.export.check_writable()?;
        let file = self.handles.file(fh)?;
        fallocate(&file, FallocateFlags::from_bits_retain(mode), offset, length)?;
        // The request does not tell who has `CAP_FSETID`.
        if header.uid != 0 {
            clear_set_id(&file)?;
        }
        Ok(Answer::EMPTY)
    }

    /// For SEEK_DATA and SEEK_HOLE; the guest does the others itself.
    pub(super) fn seek(&mut self, body: &mut Body<'_>) -> Result<Answer, Errno> {
        let LseekIn { fh, offset, whence, .. } = body.take()?;
        let position = match whence as i32 {
            libc::SEEK_DATA => SeekFrom::Data(offset),
            libc::SEEK_HOLE => SeekFrom::Hole(offset),
            _ => return Err(Errno::INVAL),
        };
        Ok(Answer::of(&LseekOut { offset: seek(self.handles.file(fh)?, position)? }))
    }

    pub(super) fn open_directory(&mut self, node: u64) -> Result<Answer, Errno> {
        self.handles.check_space()?;
        let path = self.open_directory_path(node)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = open(own_path(&path), flags, Mode::empty())?;
        let fh = self.handles.insert(node, true, directory)?;
        Ok(Answer::of(&OpenOut { fh, ..OpenOut::default() }))
    }
}
