// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Checks a store: every name leads to a complete image, and every blob has the digest that names it.
//! Nothing is changed.

use super::{Index, Store, StoreError, lock_file};
use crate::client::MAX_DOCUMENT_SIZE;
use oci_image::{Digest, MAX_INDEX_DEPTH, Reference, References, references};
use rustix::fs::FlockOperation;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

const READ_BUF_SIZE: usize = 256 << 10;

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    pub names: usize,
    pub blobs: usize,
    pub bytes: u64,
    /// Blobs that no name leads to: no fault, [`Store::collect`] removes them.
    pub unreferenced: usize,
    pub unreferenced_bytes: u64,
    pub problems: Vec<Problem>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// A name, a digest or a path.
    pub subject: String,
    pub detail: String,
}

impl Store {
    /// Reads everything. `progress` is called with the bytes that are read and all bytes.
    pub fn check(&self, progress: &dyn Fn(u64, u64)) -> Result<Checked, StoreError> {
        if !self.directory.exists() {
            return Ok(Checked::default());
        }
        let _in_use = self.in_use()?;
        let mut check = Check { store: self, found: Checked::default(), needed: BTreeSet::new() };
        let names = check.names()?;
        let damaged = check.blobs(progress)?;
        for (root, names) in names {
            let names = names.join(", ");
            for detail in check.needed_by(&root, &damaged) {
                check.problem(&names, detail);
            }
        }
        check.count_unreferenced();
        check.found.problems.sort();
        check.found.problems.dedup();
        Ok(check.found)
    }
}

struct Check<'a> {
    store: &'a Store,
    found: Checked,
    /// Blobs that names lead to.
    needed: BTreeSet<Digest>,
}

impl Check<'_> {
    fn problem(&mut self, subject: impl ToString, detail: impl Into<String>) {
        self.found.problems.push(Problem { subject: subject.to_string(), detail: detail.into() });
    }

    /// Checks the layout's own files, and returns the names of each manifest or index.
    fn names(&mut self) -> Result<BTreeMap<(Digest, u64), Vec<String>>, StoreError> {
        let directory = &self.store.directory;
        let (index, layout) = (directory.join("index.json"), directory.join("oci-layout"));
        // Otherwise a command that replaces it is between two of our reads.
        let lock = lock_file(&directory.join(super::INDEX_LOCK))?;
        super::flock(&lock, FlockOperation::LockShared).map_err(|error| StoreError::new("lock", &index, error))?;
        if index.exists() && !is_layout(&layout) {
            self.problem("oci-layout", "is missing or malformed");
        }
        let mut names: BTreeMap<(Digest, u64), Vec<String>> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        match Index::read(&index) {
            Err(error) => {
                let source = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
                self.problem("index.json", format!("{error}{source}"));
            }
            Ok(entries) => {
                for (number, entry) in entries.entries().enumerate() {
                    let Some(image) = entry.image() else {
                        self.problem("index.json", format!("entry {} has no valid digest and size", number + 1));
                        continue;
                    };
                    if !seen.insert(image.name.clone()) {
                        self.problem(&image.name, "stands for several images");
                    }
                    names.entry((image.reference.digest, image.reference.size)).or_default().push(image.name);
                }
            }
        }
        self.found.names = seen.len();
        Ok(names)
    }

    /// Hashes every blob, and returns the damaged ones.
    fn blobs(&mut self, progress: &dyn Fn(u64, u64)) -> Result<BTreeSet<Digest>, StoreError> {
        let mut blobs = Vec::new();
        for algorithm in ["sha256", "sha512"] {
            let directory = self.store.directory.join("blobs").join(algorithm);
            for entry in fs::read_dir(&directory).into_iter().flatten().filter_map(Result::ok) {
                let name = entry.file_name().to_string_lossy().into_owned();
                let size = entry.metadata().map_or(0, |metadata| metadata.len());
                match Digest::parse(&format!("{algorithm}:{name}")) {
                    Ok(digest) => blobs.push(Reference { digest, size }),
                    Err(_) => self.problem(format!("blobs/{algorithm}/{name}"), "is not named by a digest"),
                }
            }
        }
        self.found.blobs = blobs.len();
        self.found.bytes = blobs.iter().map(|blob| blob.size).sum();
        let (mut damaged, mut done) = (BTreeSet::new(), 0);
        for blob in blobs {
            let path = self.store.blob_path(&blob.digest);
            match digest_of(&path, &blob.digest, &|read| progress(done + read, self.found.bytes)) {
                Ok(actual) if actual == blob.digest => {}
                Ok(actual) => {
                    self.problem(&blob.digest, format!("is damaged: its content has digest {actual}"));
                    damaged.insert(blob.digest);
                }
                Err(error) => {
                    self.problem(&blob.digest, format!("cannot be read: {error}"));
                    damaged.insert(blob.digest);
                }
            }
            done += blob.size;
        }
        Ok(damaged)
    }

    /// What is wrong with an image, and marks the blobs that it needs.
    fn needed_by(&mut self, (digest, size): &(Digest, u64), damaged: &BTreeSet<Digest>) -> Vec<String> {
        let root = Reference { digest: digest.clone(), size: *size };
        match self.document(&root, 0) {
            Err(detail) => vec![detail],
            Ok(blobs) => {
                let faulty = blobs.iter().filter(|blob| damaged.contains(&blob.digest));
                faulty.map(|blob| format!("{} is damaged", blob.digest)).collect()
            }
        }
    }

    /// Everything that a manifest or an index leads to, or what is missing of it. Of an index, images for
    /// other platforms may be missing.
    fn document(&mut self, document: &Reference, depth: usize) -> Result<Vec<Reference>, String> {
        let digest = &document.digest;
        self.complete(document)?;
        let Some(bytes) = self.store.read_document(digest, MAX_DOCUMENT_SIZE) else {
            return Err(format!("{digest} is damaged"));
        };
        let mut found = vec![document.clone()];
        match references(&bytes, &digest.to_string(), None).map_err(|error| error.to_string())? {
            References::Blobs(blobs) => {
                for blob in &blobs {
                    self.complete(blob)?;
                }
                found.extend(blobs);
            }
            References::Manifests(_) if depth == MAX_INDEX_DEPTH => {
                return Err(format!("{digest} is nested too deeply"));
            }
            References::Manifests(entries) => {
                let mut missing = None;
                for entry in entries {
                    match self.document(&entry, depth + 1) {
                        Ok(more) => found.extend(more),
                        // A document that is here has all that it leads to.
                        Err(detail) if self.store.has(&entry) => return Err(detail),
                        Err(detail) => drop(missing.get_or_insert(detail)),
                    }
                }
                if found.len() == 1 {
                    return Err(missing.unwrap_or_else(|| format!("{digest} has no image")));
                }
            }
        }
        Ok(found)
    }

    /// Marks a blob as needed; an error if it is not here.
    fn complete(&mut self, blob: &Reference) -> Result<(), String> {
        self.needed.insert(blob.digest.clone());
        match fs::metadata(self.store.blob_path(&blob.digest)) {
            Ok(file) if file.len() == blob.size => Ok(()),
            Ok(file) => Err(format!("{} has {} bytes in place of {}", blob.digest, file.len(), blob.size)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(format!("{} is missing", blob.digest)),
            Err(error) => Err(format!("{} cannot be read: {error}", blob.digest)),
        }
    }

    fn count_unreferenced(&mut self) {
        for algorithm in ["sha256", "sha512"] {
            let directory = self.store.directory.join("blobs").join(algorithm);
            for entry in fs::read_dir(&directory).into_iter().flatten().filter_map(Result::ok) {
                let digest = Digest::parse(&format!("{algorithm}:{}", entry.file_name().to_string_lossy()));
                if digest.is_ok_and(|digest| !self.needed.contains(&digest)) {
                    self.found.unreferenced += 1;
                    self.found.unreferenced_bytes += entry.metadata().map_or(0, |metadata| metadata.len());
                }
            }
        }
    }
}

fn is_layout(path: &Path) -> bool {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(4096).read_to_end(&mut text));
    let document: Option<Value> = read.ok().and_then(|_| serde_json::from_slice(&text).ok());
    document.is_some_and(|document| document["imageLayoutVersion"].is_string())
}

fn digest_of(path: &Path, digest: &Digest, progress: &dyn Fn(u64)) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let (mut hasher, mut buffer, mut length) = (digest.hasher(), vec![0; READ_BUF_SIZE], 0);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                length += count as u64;
                progress(length);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
