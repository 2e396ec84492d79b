// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Blobs that are being downloaded. One process writes a blob, and others that need it wait; what an
//! interrupted download left is continued.

use super::{Store, StoreError, flock};
use oci_image::{Digest, Hasher, Reference};
use rustix::fs::FlockOperation;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

pub(super) const DIRECTORY: &str = "coracle.partial";
const READ_BUF_SIZE: usize = 256 << 10;

/// Outcome of a claim to download a blob.
pub(crate) enum Claim {
    Complete,
    Held(Box<Partial>),
}

/// The first bytes of a blob; its process holds a lock on the file.
pub(crate) struct Partial {
    file: File,
    path: PathBuf,
    destination: PathBuf,
    digest: Digest,
    hasher: Hasher,
    length: u64,
}

impl Store {
    /// Waits until no other process downloads the blob.
    pub(crate) fn claim(&self, blob: &Reference) -> Result<Claim, StoreError> {
        let name = format!("{}-{}", blob.digest.algorithm(), blob.digest.hex());
        let path = self.directory.join(DIRECTORY).join(name);
        let failed = |action, source: io::Error| StoreError::new(action, &path, source);
        loop {
            if self.has(blob) {
                return Ok(Claim::Complete);
            }
            let open = File::options().read(true).write(true).create(true).truncate(false).open(&path);
            let file = open.map_err(|error| failed("open", error))?;
            flock(&file, FlockOperation::LockExclusive).map_err(|error| failed("lock", error.into()))?;
            // Otherwise it was published while this process waited for the lock.
            let ours = file.metadata().map_err(|error| failed("open", error))?;
            if fs::metadata(&path).is_ok_and(|there| (there.ino(), there.dev()) == (ours.ino(), ours.dev())) {
                // It can have been published before this process created the file anew.
                if self.has(blob) {
                    fs::remove_file(&path).map_err(|error| failed("remove", error))?;
                    return Ok(Claim::Complete);
                }
                let destination = self.blob_path(&blob.digest);
                let (digest, hasher) = (blob.digest.clone(), blob.digest.hasher());
                let mut partial = Partial { file, path: path.clone(), destination, digest, hasher, length: 0 };
                partial.hash_present(blob.size).map_err(|error| failed("read", error))?;
                return Ok(Claim::Held(Box::new(partial)));
            }
        }
    }
}

impl Partial {
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Hashes what is there; more than `size` bytes are of no use.
    fn hash_present(&mut self, size: u64) -> io::Result<()> {
        if self.file.metadata()?.len() > size {
            return self.restart();
        }
        let mut buffer = vec![0; READ_BUF_SIZE];
        loop {
            match self.file.read(&mut buffer)? {
                0 => return Ok(()),
                count => {
                    self.hasher.update(&buffer[..count]);
                    self.length += count as u64;
                }
            }
        }
    }

    /// Begins at the first byte again.
    pub(crate) fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        self.hasher = self.digest.hasher();
        self.length = 0;
        Ok(())
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file.write_all(bytes).map_err(|source| StoreError::new("write", &self.path, source))?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Gives the complete blob its name, or returns the digest that it has in place of its own; then
    /// nothing of it is kept.
    pub(crate) fn publish(self) -> Result<Result<(), Digest>, StoreError> {
        let actual = self.hasher.finish();
        if actual != self.digest {
            let _ = fs::remove_file(&self.path);
            return Ok(Err(actual));
        }
        let publish = || -> io::Result<()> {
            self.file.sync_data()?;
            if let Some(directory) = self.destination.parent() {
                fs::create_dir_all(directory)?;
            }
            fs::rename(&self.path, &self.destination)
        };
        publish().map_err(|source| StoreError::new("write", &self.destination, source))?;
        Ok(Ok(()))
    }
}
