// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reads an archive: combines extended headers with their entry, and returns its data.

use super::header::Header;
use super::pax::{self, Pax};
use super::sparse::{self, PrefixedMap};
use super::{BLOCK, Entry, Kind, TarError, TarInput, printable};
use crate::limits;

pub(crate) struct Reader<I> {
    input: I,
    /// Bytes consumed so far.
    offset: u64,
    /// Unread bytes of the current entry's data.
    remaining: u64,
    /// Padding after the current entry's data.
    padding: u64,
}

/// Fields of the next entry from extended headers.
#[derive(Default)]
struct Extended {
    pax: Pax,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    headers: usize,
}

/// Alternating offsets and lengths, and the size of the file if a header has it.
type SparseMap = (Vec<u64>, Option<u64>);

impl<I: TarInput> Reader<I> {
    pub(crate) fn new(input: I) -> Self {
        Self { input, offset: 0, remaining: 0, padding: 0 }
    }

    /// Returns the next entry, or `None` at the end of the archive: one or two zero blocks, or the
    /// end of the stream.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, TarError> {
        self.skip_data()?;
        let mut extended = Extended::default();
        loop {
            let at = self.offset;
            let mut block = [0; BLOCK];
            match self.read_block(&mut block)? {
                0 => return self.end(&extended),
                BLOCK => {}
                _ => return Err(self.truncated("a header")),
            }
            if block == [0; BLOCK] {
                return self.end(&extended);
            }
            let header = Header::check(&block).ok_or(TarError::Checksum { offset: at })?;
            if !matches!(header.kind(), b'x' | b'g' | b'L' | b'K') {
                return self.entry(&header, extended).map(Some);
            }
            extended.headers += 1;
            let size = header.size().filter(|size| *size <= limits::MAX_EXTENDED_HEADER_SIZE);
            let size = size.filter(|_| extended.headers <= limits::MAX_EXTENDED_HEADERS);
            let bytes = self.read_padded(size.ok_or(TarError::ExtendedHeader { offset: at })?)?;
            let name = |mut bytes: Vec<u8>| {
                bytes.truncate(bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len()));
                Some(bytes)
            };
            match header.kind() {
                b'x' => {
                    extended.pax = pax::parse(&bytes).map_err(|detail| TarError::Pax { offset: self.offset, detail })?
                }
                b'L' => extended.long_name = name(bytes),
                b'K' => extended.long_link = name(bytes),
                _ => {}
            }
        }
    }

    /// Returns more of the current entry's data; empty at its end.
    pub(crate) fn data(&mut self) -> Result<&[u8], TarError> {
        if self.remaining == 0 {
            return Ok(&[]);
        }
        let offset = self.offset;
        let data = self.input.fill_buf().map_err(|source| TarError::Read { offset, source })?;
        if data.is_empty() {
            return Err(TarError::Truncated { offset, entry: "the data of a file".into() });
        }
        Ok(&data[..data.len().min(usize::try_from(self.remaining).unwrap_or(usize::MAX))])
    }

    /// Marks `count` bytes of [`Self::data`] as used.
    pub(crate) fn consume(&mut self, count: usize) {
        self.input.consume(count);
        self.remaining -= count as u64;
        self.offset += count as u64;
    }

    pub(crate) fn input(&mut self) -> &mut I {
        &mut self.input
    }

    fn end(&self, extended: &Extended) -> Result<Option<Entry>, TarError> {
        if extended.headers > 0 { Err(self.truncated("an extended header without its entry")) } else { Ok(None) }
    }

    fn entry(&mut self, header: &Header<'_>, extended: Extended) -> Result<Entry, TarError> {
        let Extended { pax, long_name, long_link, .. } = extended;
        let path = pax.sparse.name.clone().or(pax.path).or(long_name).unwrap_or_else(|| header.path());
        let shown = printable(&path);
        let field = |field| TarError::Field { entry: shown.clone(), field };

        let kind = match header.kind() {
            // Before ustar, a directory was a file with a trailing slash in its name.
            0 if path.ends_with(b"/") => Kind::Directory,
            0 | b'0' | b'7' | b'S' => Kind::Regular,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharacterDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            other => return Err(TarError::Kind { entry: shown, kind: printable(&[other]) }),
        };
        let size = pax.size.or_else(|| header.size()).filter(|size| i64::try_from(*size).is_ok());
        let mut stored = size.ok_or_else(|| field("size"))?;
        if kind != Kind::Regular {
            stored = 0;
        }
        self.remaining = stored;
        self.padding = stored.wrapping_neg() % BLOCK as u64;

        let (uid, gid) = header.owner();
        // `u32::MAX` means "no change" to chown, so no file can have it as an owner.
        let id = |pax: Option<u64>, header: Option<i64>| {
            let id = pax.or_else(|| header.and_then(|id| u64::try_from(id).ok()))?;
            u32::try_from(id).ok().filter(|id| *id != u32::MAX)
        };
        let mut entry = Entry {
            link: pax.link.or(long_link).unwrap_or_else(|| header.link()),
            kind,
            mode: header.mode().ok_or_else(|| field("mode"))?,
            uid: id(pax.uid, uid).ok_or_else(|| field("uid"))?,
            gid: id(pax.gid, gid).ok_or_else(|| field("gid"))?,
            mtime: pax.mtime.or_else(|| header.mtime()).ok_or_else(|| field("mtime"))?,
            device: (0, 0),
            size: stored,
            stored,
            extents: None,
            xattrs: pax.xattrs.into_iter().collect(),
            path,
        };
        if matches!(kind, Kind::CharacterDevice | Kind::BlockDevice) {
            entry.device = header.device().ok_or_else(|| field("device number"))?;
        }
        if kind == Kind::Regular {
            let map = self.sparse_map(header, &pax.sparse, &shown)?;
            if let Some((map, real_size)) = map {
                let real_size = real_size.filter(|size| i64::try_from(*size).is_ok());
                let extents = real_size.and_then(|size| sparse::extents(&map, self.remaining, size));
                entry.extents = Some(extents.ok_or_else(|| TarError::Sparse { entry: shown.clone() })?);
                entry.size = real_size.expect("its map was accepted");
                entry.stored = self.remaining;
            }
        }
        Ok(entry)
    }

    /// Returns the map if the entry is sparse. A map that precedes the data is consumed.
    fn sparse_map(
        &mut self,
        header: &Header<'_>,
        sparse: &pax::PaxSparse,
        shown: &str,
    ) -> Result<Option<SparseMap>, TarError> {
        let malformed = || TarError::Sparse { entry: shown.to_owned() };
        if header.kind() == b'S' {
            let (fields, mut more, real_size) = header.gnu_sparse().ok_or_else(malformed)?;
            let mut map = Vec::new();
            sparse::gnu_pairs(fields, &mut map).ok_or_else(malformed)?;
            while more {
                let mut block = [0; BLOCK];
                if self.read_block(&mut block)? != BLOCK {
                    return Err(self.truncated("the map of a sparse file"));
                }
                sparse::gnu_pairs(&block[..504], &mut map).ok_or_else(malformed)?;
                more = block[504] != 0;
            }
            return Ok(Some((map, Some(real_size))));
        }
        if sparse.major == Some(1) && sparse.minor.unwrap_or(0) == 0 {
            let mut map = PrefixedMap::default();
            loop {
                let mut block = [0; BLOCK];
                if self.remaining < BLOCK as u64 {
                    return Err(malformed());
                }
                if self.read_block(&mut block)? != BLOCK {
                    return Err(self.truncated("the map of a sparse file"));
                }
                self.remaining -= BLOCK as u64;
                if map.feed(&block).ok_or_else(malformed)? {
                    return Ok(Some((map.into_numbers(), sparse.real_size)));
                }
            }
        }
        match &sparse.map {
            _ if sparse.major.is_some_and(|major| major != 0) => Err(malformed()),
            Some(map) => Ok(Some((map.clone(), sparse.real_size))),
            None => Ok(None),
        }
    }

    fn skip_data(&mut self) -> Result<(), TarError> {
        let count = self.remaining + self.padding;
        let offset = self.offset;
        // The padding after the last file may be missing, the data may not.
        if !self.input.skip(self.remaining).map_err(|source| TarError::Read { offset, source })? {
            return Err(self.truncated("the data of a file"));
        }
        self.input.skip(self.padding).map_err(|source| TarError::Read { offset, source })?;
        self.offset += count;
        (self.remaining, self.padding) = (0, 0);
        Ok(())
    }

    /// Reads `size` bytes and their padding. The caller bounds `size`.
    fn read_padded(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        let mut bytes = vec![0; size as usize];
        if self.read_into(&mut bytes)? != bytes.len() {
            return Err(self.truncated("an extended header"));
        }
        self.padding = size.wrapping_neg() % BLOCK as u64;
        self.skip_data()?;
        Ok(bytes)
    }

    fn read_block(&mut self, block: &mut [u8; BLOCK]) -> Result<usize, TarError> {
        self.read_into(block)
    }

    /// Fills `into` unless the stream ends before.
    fn read_into(&mut self, into: &mut [u8]) -> Result<usize, TarError> {
        let mut filled = 0;
        while filled < into.len() {
            let offset = self.offset;
            let data = self.input.fill_buf().map_err(|source| TarError::Read { offset, source })?;
            if data.is_empty() {
                break;
            }
            let count = data.len().min(into.len() - filled);
            into[filled..filled + count].copy_from_slice(&data[..count]);
            self.input.consume(count);
            self.offset += count as u64;
            filled += count;
        }
        Ok(filled)
    }

    fn truncated(&self, entry: &str) -> TarError {
        TarError::Truncated { offset: self.offset, entry: entry.into() }
    }
}
