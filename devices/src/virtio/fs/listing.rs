// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Listing of directories: READDIR and READDIRPLUS. The position of an entry is the host's, so that nothing
//! is kept between two requests but the open directory.

use super::request::Body;
use super::server::{Answer, Server};
use super::wire::{Attr, Dirent, EntryOut, ROOT, ReadIn};
use rustix::fs::{RawDir, SeekFrom, seek};
use rustix::io::Errno;
use std::mem::MaybeUninit;
use zerocopy::IntoBytes;

/// Bytes of one answer. The guest asks again at its end.
const MAX_LISTING_SIZE: usize = 64 << 10;
/// Bytes that the host's kernel is asked for at once.
const ENTRIES_BUF_SIZE: usize = 32 << 10;

impl Server {
    /// With `plus` each entry is also looked up.
    pub(super) fn list(&mut self, node: u64, body: &mut Body<'_>, plus: bool) -> Result<Answer, Errno> {
        let ReadIn { fh, offset, size, .. } = body.take()?;
        let directory = self.handles.directory(fh)?;
        let size = (size as usize).min(MAX_LISTING_SIZE);
        // Positions are 63 bits; ext4 uses all of them.
        seek(&directory, SeekFrom::Start(offset))?;
        let mut buffer = [MaybeUninit::uninit(); ENTRIES_BUF_SIZE];
        let mut entries = RawDir::new(&directory, &mut buffer);
        let mut listing = Vec::new();
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            let is_dot = matches!(name.to_bytes(), b"." | b"..");
            if node == ROOT && !is_dot && !self.export.shows(name) {
                continue;
            }
            let kind = entry.file_type().as_raw_mode() >> 12;
            let dirent =
                Dirent { ino: entry.ino(), off: entry.next_entry_cookie(), namelen: name.count_bytes() as u32, kind };
            let padded = name.count_bytes().next_multiple_of(8);
            let length = if plus { size_of::<EntryOut>() } else { 0 } + size_of::<Dirent>() + padded;
            if listing.len() + length > size {
                break;
            }
            if plus {
                // An entry without a node is listed without attributes: `.` and `..`, and what cannot be looked up.
                let attr = Attr { ino: entry.ino(), mode: kind << 12, ..Attr::default() };
                let unknown = EntryOut { attr, ..EntryOut::default() };
                let entry = if is_dot { unknown } else { self.entry(node, &directory, name).unwrap_or(unknown) };
                listing.extend_from_slice(entry.as_bytes());
            }
            listing.extend_from_slice(dirent.as_bytes());
            listing.extend_from_slice(name.to_bytes());
            listing.resize(listing.len() + padded - name.count_bytes(), 0);
        }
        Ok(Answer::Bytes(listing))
    }
}
