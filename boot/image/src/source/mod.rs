// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The files of an image, in a directory or inside a tar archive. Host paths are built from fixed
//! names and checked digests, never from names in an archive.

mod archive;

use crate::budget::{Budget, OverBudget};
use crate::decompress::UnpackError;
use crate::digest::{Digest, DigestError};
use crate::tar::{FileSection, TarError};
use archive::Archive;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) enum Source {
    Directory(PathBuf),
    Archive(Archive),
}

/// One file of an image: a part of an open host file.
#[derive(Clone)]
pub(crate) struct Blob {
    pub file: Arc<File>,
    pub offset: u64,
    pub length: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("cannot open {path}")]
    Open { path: PathBuf, source: io::Error },
    #[error("{0} is not a regular file")]
    NotAFile(PathBuf),
    #[error("{0} is not a directory; for an archive use oci-archive: or docker-archive:")]
    NotADirectory(PathBuf),
    #[error("cannot read archive {path}")]
    Archive { path: PathBuf, source: TarError },
    #[error("archive {path}")]
    Unpack { path: PathBuf, source: UnpackError },
    #[error("{place} has no {name}")]
    Missing { place: PathBuf, name: String },
    #[error("cannot read {name}")]
    Read { name: String, source: io::Error },
    #[error("{name} is too large: {length} bytes, and {limit} are accepted")]
    TooLarge { name: String, length: u64, limit: u64 },
    #[error("{name} has {length} bytes, and its descriptor says {expected}")]
    Size { name: String, length: u64, expected: u64 },
    #[error("{name} has digest {actual}: it is damaged or was changed")]
    Digest { name: String, actual: String },
    #[error(transparent)]
    BadDigest(#[from] DigestError),
    #[error(transparent)]
    Memory(#[from] OverBudget),
}

impl Source {
    pub(crate) fn directory(path: &Path) -> Result<Self, SourceError> {
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => Ok(Self::Directory(path.to_owned())),
            Ok(_) => Err(SourceError::NotADirectory(path.to_owned())),
            Err(source) => Err(SourceError::Open { path: path.to_owned(), source }),
        }
    }

    /// Opens a tar archive. A compressed one is unpacked to a file without a name in `scratch`.
    pub(crate) fn archive(path: &Path, scratch: &Path, budget: &Budget) -> Result<Self, SourceError> {
        Archive::open(path, scratch, budget).map(Self::Archive)
    }

    /// The same for an open file, named `path` in messages.
    pub(crate) fn archive_of(file: File, path: &Path, scratch: &Path, budget: &Budget) -> Result<Self, SourceError> {
        let length = file.metadata().map_err(|source| SourceError::Open { path: path.to_owned(), source })?.len();
        Archive::of(file, length, path, scratch, budget).map(Self::Archive)
    }

    /// An open file as it is, or unpacked like an archive.
    pub(crate) fn plain(file: File, path: &Path, scratch: &Path) -> Result<Blob, SourceError> {
        let length = file.metadata().map_err(|source| SourceError::Open { path: path.to_owned(), source })?.len();
        archive::plain(file, length, path, scratch)
    }

    pub(crate) fn is_archive(&self) -> bool {
        matches!(self, Self::Archive(_))
    }

    /// The directory or archive, for messages.
    pub(crate) fn place(&self) -> &Path {
        match self {
            Self::Directory(path) => path,
            Self::Archive(archive) => archive.path(),
        }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        match self {
            Self::Directory(path) => path.join(name).exists(),
            Self::Archive(archive) => archive.has(name),
        }
    }

    /// Opens `name`: a fixed name, or one built from a checked digest. An archive also looks up
    /// other names.
    pub(crate) fn open(&self, name: &str) -> Result<Blob, SourceError> {
        match self {
            Self::Directory(directory) => {
                let path = directory.join(name);
                let (file, length) = open_regular(&path).map_err(|error| match error {
                    SourceError::Open { source, .. } if source.kind() == io::ErrorKind::NotFound => self.missing(name),
                    error => error,
                })?;
                Ok(Blob { file: Arc::new(file), offset: 0, length })
            }
            Self::Archive(archive) => archive.member(name).ok_or_else(|| self.missing(name)),
        }
    }

    /// Opens the blob with this digest and checks its size.
    pub(crate) fn open_blob(&self, digest: &Digest, size: u64) -> Result<Blob, SourceError> {
        let blob = self.open(&blob_name(digest))?;
        if blob.length != size {
            return Err(SourceError::Size { name: digest.to_string(), length: blob.length, expected: size });
        }
        Ok(blob)
    }

    /// Reads a small file.
    pub(crate) fn read(&self, name: &str) -> Result<Vec<u8>, SourceError> {
        self.open(name)?.read(name)
    }

    /// Reads a small blob and checks its size and digest.
    pub(crate) fn read_blob(&self, digest: &Digest, size: u64) -> Result<Vec<u8>, SourceError> {
        checked(self.open_blob(digest, size)?.read(&digest.to_string())?, digest)
    }

    /// The same for one whose size is not known.
    pub(crate) fn read_document(&self, digest: &Digest) -> Result<Vec<u8>, SourceError> {
        checked(self.read(&blob_name(digest))?, digest)
    }

    fn missing(&self, name: &str) -> SourceError {
        SourceError::Missing { place: self.place().to_owned(), name: name.to_owned() }
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

/// Checks the digest of `bytes`.
pub(crate) fn checked(bytes: Vec<u8>, digest: &Digest) -> Result<Vec<u8>, SourceError> {
    let mut hasher = digest.hasher();
    hasher.update(&bytes);
    match hasher.finish() {
        actual if actual == *digest => Ok(bytes),
        actual => Err(SourceError::Digest { name: digest.to_string(), actual: actual.to_string() }),
    }
}

impl Blob {
    /// Returns its bytes as a stream.
    pub(crate) fn section(&self, buffer: usize) -> FileSection {
        FileSection::new(self.file.clone(), self.offset, self.length, buffer)
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, SourceError> {
        let limit = crate::limits::MAX_DOCUMENT_SIZE;
        if self.length > limit {
            return Err(SourceError::TooLarge { name: name.into(), length: self.length, limit });
        }
        let mut bytes = Vec::with_capacity(self.length as usize);
        let result = self.section(self.length.max(1) as usize).read_to_end(&mut bytes);
        result.map_err(|source| SourceError::Read { name: name.into(), source })?;
        Ok(bytes)
    }
}

/// Opens a regular file and returns its size. Does not block on a FIFO.
fn open_regular(path: &Path) -> Result<(File, u64), SourceError> {
    let open = || -> io::Result<_> {
        let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        let metadata = file.metadata()?;
        Ok((file, metadata))
    };
    let (file, metadata) = open().map_err(|source| SourceError::Open { path: path.to_owned(), source })?;
    if !metadata.is_file() {
        return Err(SourceError::NotAFile(path.to_owned()));
    }
    Ok((file, metadata.len()))
}
