// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One request after the other: header, body, operation, answer. Everything that the guest sends is
//! copied once, but for the data of files, which the host's kernel moves.

use super::super::chain::Chain;
use super::device::FsCounters;
use super::handles::Handles;
use super::host_file::{Key, Owners};
use super::inodes::Inodes;
use super::request::Body;
use super::wire::{
    BatchForgetIn, ForgetIn, ForgetOne, InHeader, InitIn, InitOut, MAJOR, MINOR, OutHeader, init, opcode,
};
use crate::guest_warn;
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use zerocopy::{FromZeros, IntoBytes};

/// Bytes of file data in one request, and of a listing.
pub(super) const MAX_DATA_SIZE: u32 = 1 << 20;
const PAGE_SIZE: u32 = 4096;
/// Longest body without file data: an extended attribute of 64 KiB, its name and its header.
const MAX_BODY_SIZE: usize = (64 << 10) + 512;
/// What is offered of FUSE. Locks are not: the guest's kernel keeps them among its own processes.
const FEATURES: u32 = init::ASYNC_READ
    | init::ATOMIC_O_TRUNC
    | init::BIG_WRITES
    | init::AUTO_INVAL_DATA
    | init::DO_READDIRPLUS
    | init::READDIRPLUS_AUTO
    | init::PARALLEL_DIROPS
    | init::MAX_PAGES
    | init::HANDLE_KILLPRIV_V2;

/// What is shared, and how. Fixed for the life of the machine.
#[derive(Debug)]
pub(super) struct Export {
    /// The device's name in messages.
    pub(super) name: String,
    pub(super) directory: Arc<OwnedFd>,
    pub(super) key: Key,
    pub(super) only: Option<CString>,
    pub(super) read_only: bool,
    pub(super) owners: Owners,
    pub(super) max_descriptors: usize,
    /// Directories that the guest cannot enter.
    pub(super) closed: Vec<Key>,
    pub(super) counters: Arc<FsCounters>,
}

impl Export {
    /// Rejects changes to a read-only share.
    pub(super) fn check_writable(&self) -> Result<(), Errno> {
        if self.read_only { Err(Errno::ROFS) } else { Ok(()) }
    }

    /// Whether the guest may see `name` of the exported directory.
    pub(super) fn shows(&self, name: &CStr) -> bool {
        self.only.as_deref().is_none_or(|only| only == name)
    }
}

/// The file server behind one device, from one activation to the next.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) export: Arc<Export>,
    pub(super) inodes: Inodes,
    pub(super) handles: Handles,
}

/// The answer to a request.
pub(super) enum Answer {
    /// Copied behind the header.
    Bytes(Vec<u8>),
    /// So many bytes are already there.
    Moved(usize),
    /// The protocol has no answer to this request.
    Nothing,
}

impl Answer {
    pub(super) fn of(structure: &(impl IntoBytes + zerocopy::Immutable)) -> Self {
        Self::Bytes(structure.as_bytes().to_vec())
    }

    pub(super) const EMPTY: Self = Self::Bytes(Vec::new());
}

impl Server {
    pub(super) fn new(export: Arc<Export>) -> Self {
        // A quarter for files that are known, half for files that are open; the rest is for single requests.
        let max = export.max_descriptors;
        let inodes = Inodes::new(Arc::clone(&export.directory), export.key, max / 4);
        Self { export, inodes, handles: Handles::new(max / 2) }
    }

    /// Carries out the request of `chain`; returns how many bytes were written to the guest.
    pub(super) fn serve(&mut self, chain: &mut Chain<'_>) -> u32 {
        let mut header = InHeader::new_zeroed();
        if chain.readable.read_exact(header.as_mut_bytes()).is_err() {
            self.count_invalid();
            return 0;
        }
        if !matches!(header.opcode, opcode::FORGET | opcode::BATCH_FORGET) {
            self.export.counters.requests.fetch_add(1, Ordering::Relaxed);
        }
        let mut space = chain.writable.clone();
        let answer = match self.carry_out(&header, chain) {
            Ok(Answer::Nothing) => return 0,
            Ok(Answer::Bytes(bytes)) if size_of::<OutHeader>() + bytes.len() > space.remaining() => Err(Errno::IO),
            answer => answer,
        };
        let (error, length) = match &answer {
            Ok(Answer::Bytes(bytes)) => (0, bytes.len()),
            Ok(Answer::Moved(length)) => (0, *length),
            Ok(Answer::Nothing) => (0, 0),
            Err(error) => (-error.raw_os_error(), 0),
        };
        // At most MAX_DATA_SIZE.
        let len = (size_of::<OutHeader>() + length) as u32;
        if space.write_all(OutHeader { len, error, unique: header.unique }.as_bytes()).is_err() {
            self.count_invalid();
            return 0;
        }
        if let Ok(Answer::Bytes(bytes)) = &answer {
            space.write_all(bytes).expect("the space was checked");
        }
        len
    }

    fn count_invalid(&self) {
        self.export.counters.invalid.fetch_add(1, Ordering::Relaxed);
        guest_warn!("{}: invalid request", self.export.name);
    }

    fn carry_out(&mut self, header: &InHeader, chain: &mut Chain<'_>) -> Result<Answer, Errno> {
        match header.opcode {
            opcode::READ => return self.read(chain),
            opcode::WRITE => return self.write(chain),
            _ => {}
        }
        if chain.readable.remaining() > MAX_BODY_SIZE {
            return Err(Errno::TOOBIG);
        }
        let mut body = vec![0; chain.readable.remaining()];
        chain.readable.read_exact(&mut body).expect("that much remains");
        let (body, node) = (&mut Body(&body), header.nodeid);
        match header.opcode {
            opcode::INIT => init(body),
            opcode::DESTROY => Ok(Answer::EMPTY),
            opcode::INTERRUPT => Ok(Answer::Nothing),
            opcode::FORGET => {
                // An invalid one has no answer either.
                if let Ok(ForgetIn { nlookup }) = body.take() {
                    self.inodes.forget(node, nlookup);
                }
                Ok(Answer::Nothing)
            }
            opcode::BATCH_FORGET => {
                let _ = self.forget_batch(body);
                Ok(Answer::Nothing)
            }
            opcode::LOOKUP => self.lookup(node, body),
            opcode::GETATTR => self.get_attributes(node, body),
            opcode::SETATTR => self.set_attributes(node, body),
            opcode::READLINK => self.read_link(node),
            opcode::SYMLINK => self.make_symlink(header, body),
            opcode::MKNOD => self.make_node(header, body),
            opcode::MKDIR => self.make_directory(header, body),
            opcode::UNLINK => self.unlink(node, body, false),
            opcode::RMDIR => self.unlink(node, body, true),
            opcode::RENAME => self.rename(node, body, false),
            opcode::RENAME2 => self.rename(node, body, true),
            opcode::LINK => self.link(node, body),
            opcode::OPEN => self.open_file(node, body),
            opcode::CREATE => self.create(header, body),
            opcode::TMPFILE => self.create_unnamed(header, body),
            opcode::RELEASE | opcode::RELEASEDIR => self.release(body),
            opcode::FSYNC => self.sync(body, false),
            opcode::FSYNCDIR => self.sync(body, true),
            opcode::SYNCFS => self.sync_file_system(),
            opcode::STATFS => self.statistics(),
            opcode::FALLOCATE => self.allocate(header, body),
            opcode::LSEEK => self.seek(body),
            opcode::OPENDIR => self.open_directory(node),
            opcode::READDIR => self.list(node, body, false),
            opcode::READDIRPLUS => self.list(node, body, true),
            opcode::SETXATTR => self.set_xattr(node, body),
            opcode::GETXATTR => self.get_xattr(node, body),
            opcode::LISTXATTR => self.list_xattrs(node, body),
            opcode::REMOVEXATTR => self.remove_xattr(node, body),
            _ => Err(Errno::NOSYS),
        }
    }

    /// Ends with the body, if that has fewer entries than its count.
    fn forget_batch(&mut self, body: &mut Body<'_>) -> Result<(), Errno> {
        let BatchForgetIn { count, .. } = body.take()?;
        for _ in 0..count {
            let ForgetOne { nodeid, nlookup } = body.take()?;
            self.inodes.forget(nodeid, nlookup);
        }
        Ok(())
    }

    /// An `O_PATH` descriptor of a file, or any descriptor if it has been deleted while it is open.
    pub(super) fn open_path(&mut self, node: u64) -> Result<Arc<OwnedFd>, Errno> {
        match self.inodes.open(node) {
            Err(Errno::STALE) => self.handles.of_node(node).ok_or(Errno::STALE),
            outcome => outcome,
        }
    }
}

fn init(body: &mut Body<'_>) -> Result<Answer, Errno> {
    let InitIn { major, minor, max_readahead, flags } = body.take()?;
    if major < MAJOR || major == MAJOR && minor < MINOR {
        return Err(Errno::PROTO);
    }
    // A newer driver is told our version only, and asks again.
    Ok(Answer::of(&InitOut {
        major: MAJOR,
        minor: MINOR,
        max_readahead: max_readahead.min(MAX_DATA_SIZE),
        flags: flags & FEATURES,
        max_background: 64,
        congestion_threshold: 48,
        max_write: MAX_DATA_SIZE,
        time_gran: 1,
        max_pages: (MAX_DATA_SIZE / PAGE_SIZE) as u16,
        ..InitOut::default()
    }))
}
