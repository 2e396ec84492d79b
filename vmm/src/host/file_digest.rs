// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The SHA-256 digest of a file that a start must not wait for: remembered in the cache by what changes whenever the file's
//! contents do, and computed on a thread of its own (`digest`) where it is not known yet.

use super::atomic_write::atomic_write;
use boot::file_identity;
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::thread::{Builder, JoinHandle};

/// Folder below the cache.
const FOLDER: &str = "digests/v1";
const PIECE: usize = 256 << 10;

/// A digest that is known, or will be.
#[derive(Debug)]
pub(crate) enum FileDigest {
    /// `sha256:...`.
    Known(String),
    /// Being computed.
    Pending(JoinHandle<io::Result<String>>),
    /// The file cannot be examined.
    Failed(io::Error),
}

impl FileDigest {
    /// Looks the digest of the file at `path` up below `cache`, or begins to compute it. Never waits.
    #[must_use]
    pub(crate) fn begin(path: &Path, cache: Option<&Path>) -> Self {
        Self::try_begin(path, cache).unwrap_or_else(Self::Failed)
    }

    fn try_begin(path: &Path, cache: Option<&Path>) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let entry = cache.map(|cache| cache.join(FOLDER).join(file_identity(&metadata)));
        if let Some(known) = entry.as_deref().and_then(|entry| fs::read_to_string(entry).ok()).filter(|d| is_digest(d))
        {
            return Ok(Self::Known(known));
        }
        let compute = move || {
            let digest = of_file(&file)?;
            // What changed while it was read has no digest to remember. What cannot be kept is computed again.
            if let Some(entry) = entry
                && file_identity(&file.metadata()?) == file_identity(&metadata)
            {
                let _ = remember(&entry, &digest);
            }
            Ok(digest)
        };
        Ok(Self::Pending(Builder::new().name("digest".into()).spawn(compute)?))
    }

    /// The digest, waiting for it if it must.
    ///
    /// # Errors
    /// The file could not be read.
    pub(crate) fn wait(self) -> io::Result<String> {
        match self {
            Self::Known(digest) => Ok(digest),
            Self::Pending(thread) => thread.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into())),
            Self::Failed(error) => Err(error),
        }
    }
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn of_file(file: &File) -> io::Result<String> {
    let (mut hasher, mut bytes, mut position) = (Sha256::new(), vec![0; PIECE], 0);
    loop {
        match file.read_at(&mut bytes, position) {
            Ok(0) => break,
            Ok(length) => {
                hasher.update(&bytes[..length]);
                position += length as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let mut text = String::from("sha256:");
    for byte in hasher.finalize() {
        write!(text, "{byte:02x}").expect("a string takes all that is written to it");
    }
    Ok(text)
}

fn remember(entry: &Path, digest: &str) -> io::Result<()> {
    if let Some(folder) = entry.parent() {
        fs::create_dir_all(folder)?;
    }
    atomic_write(entry, digest.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_digest_is_computed_once_and_then_known() {
        let folder = tempfile::tempdir().unwrap();
        let (path, cache) = (folder.path().join("vmlinux"), folder.path().join("cache"));
        fs::write(&path, "abc").unwrap();
        let first = FileDigest::begin(&path, Some(&cache));
        assert!(matches!(first, FileDigest::Pending(_)), "{first:?}");
        assert_eq!(first.wait().unwrap(), ABC);
        let second = FileDigest::begin(&path, Some(&cache));
        assert!(matches!(&second, FileDigest::Known(digest) if digest == ABC), "{second:?}");
    }

    #[test]
    fn a_file_that_was_written_to_has_another_digest() {
        let folder = tempfile::tempdir().unwrap();
        let (path, cache) = (folder.path().join("vmlinux"), folder.path().join("cache"));
        fs::write(&path, "abd").unwrap();
        let before = FileDigest::begin(&path, Some(&cache)).wait().unwrap();
        // Of another length: two writes within one tick of the kernel have the same times.
        fs::write(&path, "abcd").unwrap();
        assert_ne!(FileDigest::begin(&path, Some(&cache)).wait().unwrap(), before);
    }

    #[test]
    fn a_damaged_or_unusable_cache_costs_only_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vmlinux");
        fs::write(&path, "abc").unwrap();
        let cache = folder.path().join("cache");
        let entry = cache.join(FOLDER).join(file_identity(&fs::metadata(&path).unwrap()));
        remember(&entry, "sha256:nonsense").unwrap();
        for cache in [Some(cache.as_path()), Some(Path::new("/dev/null")), None] {
            assert_eq!(FileDigest::begin(&path, cache).wait().unwrap(), ABC);
        }
    }

    #[test]
    fn what_is_no_file_has_no_digest() {
        for path in ["/nowhere", "/dev/zero", "/"] {
            assert!(FileDigest::begin(Path::new(path), None).wait().is_err(), "{path}");
        }
    }
}
