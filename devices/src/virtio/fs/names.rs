// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Operations on names in a directory: LOOKUP, the makers of files, UNLINK, RENAME, LINK.

use super::attributes::{VALID_SECONDS, closed_attributes};
use super::host_file::{self, Key, Owners, open_at, own_path};
use super::request::Body;
use super::server::{Answer, Server};
use super::wire::{EntryOut, InHeader, LinkIn, MkdirIn, MknodIn, ROOT, Rename2In, RenameIn};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, chmodat, linkat, mkdirat, mknodat, readlinkat, renameat_with,
    symlinkat, unlinkat,
};
use rustix::io::Errno;
use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

impl Server {
    pub(super) fn lookup(&mut self, parent: u64, body: &mut Body<'_>) -> Result<Answer, Errno> {
        let name = body.name()?;
        let directory = self.open_directory_path(parent)?;
        Ok(Answer::of(&self.entry(parent, &directory, &name)?))
    }

    /// Finds `name` in `directory`, which is `parent`. The guest then holds it once more.
    pub(super) fn entry(&mut self, parent: u64, directory: &OwnedFd, name: &CStr) -> Result<EntryOut, Errno> {
        if parent == ROOT && !self.export.shows(name) {
            return Err(Errno::NOENT);
        }
        self.known(parent, name, open_at(directory, name, OFlags::PATH, Mode::empty())?)
    }

    /// The same for the file that is open as `path`.
    pub(super) fn known(&mut self, parent: u64, name: &CStr, path: OwnedFd) -> Result<EntryOut, Errno> {
        let status = host_file::status(&path)?;
        let key = Key::of(&status);
        let is_closed = key != self.export.key
            && (self.export.closed.contains(&key)
                || key.device != self.export.key.device && host_file::is_kernel_file_system(&path)?);
        let (nodeid, attr) = match is_closed {
            false => (self.inodes.enter(key, parent, name, path)?, self.attributes(&status)),
            // The guest mounts its own file systems on it.
            true if key.is(libc::S_IFDIR) => (self.inodes.enter_closed(key, parent, name)?, closed_attributes()),
            true => return Err(Errno::ACCESS),
        };
        let valid = VALID_SECONDS;
        Ok(EntryOut { nodeid, entry_valid: valid, attr_valid: valid, attr, ..EntryOut::default() })
    }

    /// The directory `node`.
    pub(super) fn open_directory_path(&mut self, node: u64) -> Result<Arc<OwnedFd>, Errno> {
        if !self.inodes.key(node)?.is(libc::S_IFDIR) {
            return Err(Errno::NOTDIR);
        }
        self.inodes.open(node)
    }

    /// The directory `node`, in which names are about to change. The one of a single file has no other names.
    pub(super) fn open_to_change(&mut self, node: u64) -> Result<Arc<OwnedFd>, Errno> {
        self.export.check_writable()?;
        if node == ROOT && self.export.only.is_some() {
            return Err(Errno::PERM);
        }
        self.open_directory_path(node)
    }

    pub(super) fn read_link(&mut self, node: u64) -> Result<Answer, Errno> {
        if !self.inodes.key(node)?.is(libc::S_IFLNK) {
            return Err(Errno::INVAL);
        }
        let target = readlinkat(self.inodes.open(node)?, c"", Vec::new())?;
        Ok(Answer::Bytes(target.into_bytes()))
    }

    pub(super) fn make_symlink(&mut self, header: &InHeader, body: &mut Body<'_>) -> Result<Answer, Errno> {
        let (name, target) = (body.name()?, body.target()?);
        let directory = self.open_to_change(header.nodeid)?;
        symlinkat(target, &directory, &*name)?;
        self.made(header, &directory, &name, None)
    }

    /// Makes a regular file, a FIFO or a socket. A device node would reach the host's devices.
    pub(super) fn make_node(&mut self, header: &InHeader, body: &mut Body<'_>) -> Result<Answer, Errno> {
        let MknodIn { mode, .. } = body.take()?;
        let name = body.name()?;
        let directory = self.open_to_change(header.nodeid)?;
        let kind = FileType::from_raw_mode(mode);
        if !matches!(kind, FileType::RegularFile | FileType::Fifo | FileType::Socket) {
            return Err(Errno::PERM);
        }
        mknodat(&directory, &*name, kind, Mode::from_raw_mode(mode & 0o777), 0)?;
        self.made(header, &directory, &name, Some(mode))
    }

    pub(super) fn make_directory(&mut self, header: &InHeader, body: &mut Body<'_>) -> Result<Answer, Errno> {
        let MkdirIn { mode, .. } = body.take()?;
        let name = body.name()?;
        let directory = self.open_to_change(header.nodeid)?;
        mkdirat(&directory, &*name, Mode::from_raw_mode(mode & 0o777))?;
        // A directory inherits this bit on the host.
        let inherited = host_file::status(&directory)?.stx_mode & libc::S_ISGID as u16;
        self.made(header, &directory, &name, Some(mode | u32::from(inherited)))
    }

    /// Gives what was made to its owner, and sets its mode, which the umask of this process has changed.
    pub(super) fn made(
        &mut self,
        header: &InHeader,
        directory: &OwnedFd,
        name: &CStr,
        mode: Option<u32>,
    ) -> Result<Answer, Errno> {
        let path = open_at(directory, name, OFlags::PATH, Mode::empty())?;
        self.give_to_owner(header, directory, &path)?;
        if let Some(mode) = mode {
            chmodat(CWD, own_path(&path), Mode::from_raw_mode(mode & 0o7777), AtFlags::empty())?;
        }
        Ok(Answer::of(&self.entry(header.nodeid, directory, name)?))
    }

    /// A new file belongs to the process of the guest that made it, and to the group of its directory if that
    /// is set-group-id.
    pub(super) fn give_to_owner(&self, header: &InHeader, directory: &OwnedFd, path: &OwnedFd) -> Result<(), Errno> {
        let Owners::Kept = self.export.owners else { return Ok(()) };
        let inherits = host_file::status(directory)?.stx_mode & libc::S_ISGID as u16 != 0;
        self.export.owners.change(path, Some(header.uid), (!inherits).then_some(header.gid))
    }

    pub(super) fn unlink(&mut self, parent: u64, body: &mut Body<'_>, is_directory: bool) -> Result<Answer, Errno> {
        let name = body.name()?;
        let directory = self.open_to_change(parent)?;
        unlinkat(&directory, &*name, if is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() })?;
        Ok(Answer::EMPTY)
    }

    pub(super) fn rename(&mut self, parent: u64, body: &mut Body<'_>, has_flags: bool) -> Result<Answer, Errno> {
        let (new_parent, flags) = if has_flags {
            let Rename2In { newdir, flags, .. } = body.take()?;
            (newdir, RenameFlags::from_bits_retain(flags))
        } else {
            (body.take::<RenameIn>()?.newdir, RenameFlags::empty())
        };
        if !(RenameFlags::NOREPLACE | RenameFlags::EXCHANGE).contains(flags) {
            return Err(Errno::INVAL);
        }
        let (name, new_name) = (body.name()?, body.name()?);
        let (directory, new_directory) = (self.open_to_change(parent)?, self.open_to_change(new_parent)?);
        renameat_with(&directory, &*name, &new_directory, &*new_name, flags)?;
        self.note_place(new_parent, &new_directory, &new_name);
        if flags.contains(RenameFlags::EXCHANGE) {
            self.note_place(parent, &directory, &name);
        }
        Ok(Answer::EMPTY)
    }

    fn note_place(&mut self, parent: u64, directory: &OwnedFd, name: &CStr) {
        // If another process changed it in the meantime, the number of the file is stale.
        let key = open_at(directory, name, OFlags::PATH, Mode::empty()).and_then(|path| host_file::status(&path));
        if let Ok(status) = key {
            self.inodes.relocate(Key::of(&status), parent, name);
        }
    }

    pub(super) fn link(&mut self, parent: u64, body: &mut Body<'_>) -> Result<Answer, Errno> {
        let LinkIn { oldnodeid } = body.take()?;
        let name = body.name()?;
        let directory = self.open_to_change(parent)?;
        // The kernel goes on from the name in /proc to the file itself, which it does not follow if that is a symbolic link.
        let path = self.open_path(oldnodeid)?;
        linkat(CWD, own_path(&path), &directory, &*name, AtFlags::SYMLINK_FOLLOW)?;
        Ok(Answer::of(&self.entry(parent, &directory, &name)?))
    }
}
