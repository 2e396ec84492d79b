// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The files of one tar archive of a user, as a stream: plain or as gzip. Nothing is kept.

use crate::limits;
use crate::tar::{BLOCK, Entry, Kind, Reader, TarError, TarInput, is_tar_start, printable};
use flate2::bufread::MultiGzDecoder;
use std::io::{self, BufReader, Read};

const READ_BUF_SIZE: usize = 64 << 10;
/// Bytes of a file that an archive of this size begins with.
const MAX_START: usize = BLOCK;

/// A part of an archive.
#[derive(Debug)]
pub enum ArchivePart<'a> {
    /// The next file. Its path, and that of a hard link, is relative, without `.` and `..`; empty for the directory itself.
    Entry(Entry),
    /// The next bytes of the last file.
    Data(&'a [u8]),
    /// So many zeroes follow.
    Hole(u64),
}

#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error(transparent)]
    Tar(#[from] TarError),
    #[error("neither a tar archive nor one that is compressed by gzip{}", .0.map(|it| format!(" ({it} is not supported)")).unwrap_or_default())]
    Format(Option<&'static str>),
    #[error("cannot read")]
    Read(#[source] io::Error),
    #[error("entry `{0}` leads out of the directory")]
    Path(String),
}

/// Passes the files of the archive `input` to `take`, one part after the other.
///
/// # Errors
/// The archive is damaged or of an unknown kind, or `take` fails.
pub fn read_archive<E: From<ArchiveError>>(
    mut input: impl Read,
    mut take: impl FnMut(ArchivePart<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut start = Vec::with_capacity(MAX_START);
    (&mut input).take(MAX_START as u64).read_to_end(&mut start).map_err(ArchiveError::Read)?;
    let known = crate::decompress::known_compression(&start);
    let is_gzip = known == Some("gzip");
    let is_plain = start.is_empty() || is_tar_start(&start);
    let input = BufReader::with_capacity(READ_BUF_SIZE, start.chain(input));
    match (is_gzip, is_plain) {
        (true, _) => read(BufReader::with_capacity(READ_BUF_SIZE, MultiGzDecoder::new(input)), &mut take),
        (false, true) => read(input, &mut take),
        (false, false) => Err(ArchiveError::Format(known).into()),
    }
}

fn read<E: From<ArchiveError>>(
    input: impl TarInput,
    take: &mut impl FnMut(ArchivePart<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut reader = Reader::new(input);
    while let Some(mut entry) = reader.next_entry().map_err(ArchiveError::Tar)? {
        entry.path = relative(&entry.path)?;
        if entry.kind == Kind::HardLink {
            entry.link = relative(&entry.link)?;
        }
        let (size, stored, is_regular) = (entry.size, entry.stored, entry.kind == Kind::Regular);
        let extents = entry.extents.take().unwrap_or_else(|| vec![(0, stored)]);
        take(ArchivePart::Entry(entry))?;
        let mut end = 0;
        for (offset, length) in extents.into_iter().filter(|_| is_regular) {
            hole(offset - end, take)?;
            data(&mut reader, length, take)?;
            end = offset + length;
        }
        if is_regular {
            hole(size - end, take)?;
        }
    }
    Ok(())
}

fn hole<E>(size: u64, take: &mut impl FnMut(ArchivePart<'_>) -> Result<(), E>) -> Result<(), E> {
    if size > 0 { take(ArchivePart::Hole(size)) } else { Ok(()) }
}

fn data<E: From<ArchiveError>>(
    reader: &mut Reader<impl TarInput>,
    mut length: u64,
    take: &mut impl FnMut(ArchivePart<'_>) -> Result<(), E>,
) -> Result<(), E> {
    while length > 0 {
        let bytes = reader.data().map_err(ArchiveError::Tar)?;
        let count = bytes.len().min(usize::try_from(length).unwrap_or(usize::MAX));
        take(ArchivePart::Data(&bytes[..count]))?;
        reader.consume(count);
        length -= count as u64;
    }
    Ok(())
}

/// Without slashes at both ends and names that change nothing.
fn relative(path: &[u8]) -> Result<Vec<u8>, ArchiveError> {
    let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".").collect();
    match names.iter().any(|name| *name == b"..") || path.len() > limits::MAX_PATH_LENGTH {
        true => Err(ArchiveError::Path(printable(path))),
        false => Ok(names.join(&b'/')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::TarWriter;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write as _;

    fn listed(archive: &[u8]) -> Result<Vec<(String, Vec<u8>)>, ArchiveError> {
        let mut files: Vec<(String, Vec<u8>)> = Vec::new();
        read_archive(archive, |part| {
            match part {
                ArchivePart::Entry(entry) => {
                    files.push((String::from_utf8(entry.path).unwrap(), entry.link));
                }
                ArchivePart::Data(bytes) => files.last_mut().unwrap().1.extend(bytes),
                ArchivePart::Hole(size) => files.last_mut().unwrap().1.extend(vec![0; size as usize]),
            }
            Ok::<_, ArchiveError>(())
        })?;
        Ok(files)
    }

    fn archive(entries: &[(&str, Kind, &str)]) -> Vec<u8> {
        let mut tar = TarWriter::new(Vec::new());
        for (path, kind, content) in entries {
            let is_regular = *kind == Kind::Regular;
            let size = if is_regular { content.len() as u64 } else { 0 };
            let link = if is_regular { Vec::new() } else { content.as_bytes().to_vec() };
            tar.entry(&Entry { kind: *kind, link, ..Entry::regular(path.as_bytes().to_vec(), size) }).unwrap();
            if is_regular {
                tar.write(content.as_bytes()).unwrap();
                tar.end(size).unwrap();
            }
        }
        tar.finish().unwrap()
    }

    #[test]
    fn paths_are_below_the_directory() {
        let long = "x".repeat(100_000);
        let tar = archive(&[
            ("./", Kind::Directory, ""),
            ("/a//./b/", Kind::Directory, ""),
            ("a/b/c", Kind::Regular, &long),
            ("d", Kind::HardLink, "./a/b/c"),
            ("e", Kind::Symlink, "../../x"),
        ]);
        let expected: Vec<(String, Vec<u8>)> =
            [("", ""), ("a/b", ""), ("a/b/c", &long), ("d", "a/b/c"), ("e", "../../x")]
                .map(|(path, content)| (path.to_owned(), content.as_bytes().to_vec()))
                .into();
        assert_eq!(listed(&tar).unwrap(), expected);
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&tar).unwrap();
        assert_eq!(listed(&gzip.finish().unwrap()).unwrap(), expected);
        assert_eq!(listed(b"").unwrap(), []);
        for (path, kind, link) in [("a/../../b", Kind::Regular, ""), ("b", Kind::HardLink, "../b")] {
            assert!(matches!(listed(&archive(&[(path, kind, link)])), Err(ArchiveError::Path(_))), "{path}");
        }
    }

    #[test]
    fn other_input_is_rejected() {
        let tar = archive(&[("a", Kind::Regular, "text")]);
        assert!(matches!(listed(&tar[..514]), Err(ArchiveError::Tar(_))));
        assert!(matches!(listed(b"text"), Err(ArchiveError::Format(None))));
        assert!(matches!(listed(b"BZh91AY&SY"), Err(ArchiveError::Format(Some(_)))));
        assert!(listed(b"\x1f\x8b\x08rest").is_err());
    }
}
