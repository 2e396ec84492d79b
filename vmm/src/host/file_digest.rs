// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The SHA-256 digest of a file, for which a start must not wait: cached by the file's identity (device, inode, length, times), and
//! computed on a thread of its own (`digest`) if it is not in the cache.

use super::atomic_write::atomic_write;
use super::hex::hex;
use boot::file_identity;
use sha2::{Digest as _, Sha256};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::thread::{Builder, JoinHandle};

/// Directory below the cache.
const DIRECTORY: &str = "digests/v1";
const BUF_SIZE: usize = 256 << 10;

#[derive(Debug)]
pub(crate) enum FileDigest {
    /// `sha256:...`.
    Known(String),
    /// On the thread `digest`.
    Pending(JoinHandle<io::Result<String>>),
    /// The file cannot be opened.
    Failed(io::Error),
}

impl FileDigest {
    /// Looks up the digest of the file at `path` in `cache`, or starts to compute it. Never waits.
    #[must_use]
    pub(crate) fn begin(
        path: &Path,
        cache: Option<&Path>,
        confine: impl FnOnce(Option<&Path>) + Send + 'static,
    ) -> Self {
        Self::try_begin(path, cache, confine).unwrap_or_else(Self::Failed)
    }

    fn try_begin(
        path: &Path,
        cache: Option<&Path>,
        confine: impl FnOnce(Option<&Path>) + Send + 'static,
    ) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let entry = cache.map(|cache| cache.join(DIRECTORY).join(file_identity(&metadata)));
        if let Some(known) = entry.as_deref().and_then(|entry| fs::read_to_string(entry).ok()).filter(|d| is_digest(d))
        {
            return Ok(Self::Known(known));
        }
        let directory = entry.as_deref().and_then(Path::parent).map(Path::to_owned);
        // A directory that cannot be made is one that cannot be written.
        let _ = directory.as_deref().map(fs::create_dir_all);
        let compute = move || {
            confine(directory.as_deref());
            let digest = of_file(&file)?;
            // A file that changed while it was read has no digest to cache. A digest that cannot be cached is computed again.
            if let Some(entry) = entry
                && file_identity(&file.metadata()?) == file_identity(&metadata)
            {
                let _ = store(&entry, &digest);
            }
            Ok(digest)
        };
        Ok(Self::Pending(Builder::new().name("digest".into()).spawn(compute)?))
    }

    /// Waits for the digest.
    ///
    /// # Errors
    /// The file cannot be read.
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
    let (mut hasher, mut bytes, mut position) = (Sha256::new(), vec![0; BUF_SIZE], 0);
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
    Ok(format!("sha256:{}", hex(&hasher.finalize())))
}

fn store(entry: &Path, digest: &str) -> io::Result<()> {
    atomic_write(entry, digest.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_digest_is_computed_once_and_then_cached() {
        let directory = tempfile::tempdir().unwrap();
        let (path, cache) = (directory.path().join("vmlinux"), directory.path().join("cache"));
        fs::write(&path, "abc").unwrap();
        let first = FileDigest::begin(&path, Some(&cache), |_| {});
        assert!(matches!(first, FileDigest::Pending(_)), "{first:?}");
        assert_eq!(first.wait().unwrap(), ABC);
        let second = FileDigest::begin(&path, Some(&cache), |_| {});
        assert!(matches!(&second, FileDigest::Known(digest) if digest == ABC), "{second:?}");
    }

    #[test]
    fn a_changed_file_has_another_digest() {
        let directory = tempfile::tempdir().unwrap();
        let (path, cache) = (directory.path().join("vmlinux"), directory.path().join("cache"));
        fs::write(&path, "abd").unwrap();
        let before = FileDigest::begin(&path, Some(&cache), |_| {}).wait().unwrap();
        // Of another length: two writes within one tick of the kernel's clock have the same times.
        fs::write(&path, "abcd").unwrap();
        assert_ne!(FileDigest::begin(&path, Some(&cache), |_| {}).wait().unwrap(), before);
    }

    #[test]
    fn an_unusable_cache_costs_only_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vmlinux");
        fs::write(&path, "abc").unwrap();
        let cache = directory.path().join("cache");
        let entry = cache.join(DIRECTORY).join(file_identity(&fs::metadata(&path).unwrap()));
        fs::create_dir_all(entry.parent().unwrap()).unwrap();
        store(&entry, "sha256:nonsense").unwrap();
        for cache in [Some(cache.as_path()), Some(Path::new("/dev/null")), None] {
            assert_eq!(FileDigest::begin(&path, cache, |_| {}).wait().unwrap(), ABC);
        }
    }

    #[test]
    fn only_regular_files_have_digests() {
        for path in ["/nowhere", "/dev/zero", "/"] {
            assert!(FileDigest::begin(Path::new(path), None, |_| {}).wait().is_err(), "{path}");
        }
    }
}
