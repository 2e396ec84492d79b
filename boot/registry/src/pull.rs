// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Brings an image into the store: its documents, then its layers, several at a time. What is in the
//! store already is not fetched; what an earlier attempt left is continued. The thread that brought a layer also converts it, while
//! others are still downloaded.

use crate::client::{ClientError, Credentials, MAX_DOCUMENT_SIZE, Manifest, Repository};
use crate::parallel::{Attempts, MAX_AT_ONCE, StartError, for_each, with_retries};
use crate::registries_conf::{Registries, RegistriesError};
use crate::store::{Claim, Partial, Store, StoreError};
use oci_image::{
    ImageError, ImageName, LayersAhead, MAX_INDEX_DEPTH, Platform, Reference, References, check_platform, references,
};
use std::collections::BTreeSet;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const READ_BUF_SIZE: usize = 128 << 10;
/// Of a server that sends less in that time, no more is expected.
const MIN_BYTES_PER_PERIOD: u64 = 64 << 10;
const RATE_PERIOD: Duration = Duration::from_secs(60);
/// Compressed bytes of an image.
const MAX_IMAGE_BYTES: u64 = 128 << 30;

pub struct Pull<'a> {
    pub name: &'a ImageName,
    pub store: &'a Store,
    /// Selects one of the images in an index.
    pub platform: &'a Platform,
    pub credentials: &'a Credentials,
    pub registries: &'a Registries,
    /// Checks the registry's certificate, and rejects plain HTTP except on this host.
    pub verify: bool,
    /// Directory of the cache in which the layers are converted; without one they are only stored.
    pub cache: Option<&'a Path>,
    /// Called by several threads.
    pub progress: Option<&'a (dyn Fn(PullProgress) + Sync)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullProgress {
    /// The bytes that are here, and those of the whole image.
    Downloading { bytes: u64, total: u64 },
    /// All bytes are here; this many are converted.
    Unpacking { bytes: u64, total: u64 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// `sha256:...` of what the name stands for: a manifest, or an index of several.
    pub digest: String,
    /// Whether the name was new, or stood for something else.
    pub changed: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot pull {name}")]
pub struct PullError {
    name: String,
    source: Cause,
}

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Registries(#[from] RegistriesError),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{digest}: the registry sends a blob with digest {actual}")]
    Digest { digest: String, actual: String },
    #[error("{digest}: the registry sends more than the {size} bytes that the manifest gives")]
    TooLong { digest: String, size: u64 },
    #[error("{digest}: the connection broke {attempts} times, at byte {length} of {size}")]
    Broken { digest: String, attempts: u32, length: u64, size: u64 },
    #[error("{digest}: the registry sends less than {} KiB in {} s", MIN_BYTES_PER_PERIOD >> 10, RATE_PERIOD.as_secs())]
    TooSlow { digest: String },
    #[error("the image has more than {} GiB", MAX_IMAGE_BYTES >> 30)]
    TooLarge,
    #[error("the image index is nested too deeply")]
    TooDeep,
    #[error(transparent)]
    Thread(#[from] StartError),
    #[error("cannot write a blob to the image store")]
    Write(#[source] io::Error),
}

impl PullError {
    /// Whether the cause is this host (no space, no permission in the store).
    #[must_use]
    pub fn is_host(&self) -> bool {
        matches!(self.source, Cause::Store(_) | Cause::Thread(_) | Cause::Write(_))
    }
}

/// Pulls an image and gives it its name in the store.
pub fn pull(request: &Pull<'_>) -> Result<Pulled, PullError> {
    try_pull(request).map_err(|source| PullError { name: request.name.short(), source })
}

fn try_pull(request: &Pull<'_>) -> Result<Pulled, Cause> {
    let &Pull { name, store, platform, credentials, registries, verify, cache, progress } = request;
    store.create()?;
    let _in_use = store.in_use()?;
    let endpoints = registries.for_pull(name)?;
    let (last, mirrors) = endpoints.split_last().expect("there is the name's own");
    let reference = name.digest().or(name.tag()).unwrap_or("latest");
    let reach = |endpoint, is_mirror: bool| {
        let repository = Repository::connect(endpoint, credentials, verify)?;
        let manifest = || repository.manifest(reference);
        // What a mirror does not answer, the next one may.
        let top = if is_mirror { manifest() } else { with_retries(manifest) }?;
        Ok::<_, ClientError>((repository, top))
    };
    let of_mirror = mirrors.iter().find_map(|mirror| match reach(mirror, true) {
        Ok(found) => Some(found),
        Err(error) => {
            log::debug!("mirror {}: {error}", mirror.registry);
            None
        }
    });
    let (repository, top) = of_mirror.map_or_else(|| reach(last, false), Ok)?;
    let (manifest, blobs) = image_of(&repository, store, platform, &top)?;

    let total = blobs.iter().fold(0_u64, |sum, blob| sum.saturating_add(blob.size));
    if total > MAX_IMAGE_BYTES {
        return Err(Cause::TooLarge);
    }
    let done = AtomicU64::new(0);
    let download =
        Download { repository: &repository, store, done: &done, total, progress, stop: &AtomicBool::new(false) };
    let (config, layers) = blobs.split_first().expect("a manifest has a configuration");
    // First, because it may show that the rest is of no use.
    download.blob(config)?;
    if let Some(bytes) = store.read_document(&config.digest, MAX_DOCUMENT_SIZE) {
        check_platform(&bytes, &config.digest.to_string(), platform)?;
    }
    let ahead = cache.and_then(|cache| {
        let opened = LayersAhead::open(store.directory(), &manifest, cache, MAX_AT_ONCE);
        opened.inspect_err(|error| log::debug!("{}: not converted yet: {error:?}", manifest.digest)).ok().flatten()
    });
    for_each(layers, "pull", download.stop, |layer| {
        download.blob(layer)?;
        if let Some(ahead) = &ahead {
            download.convert(ahead, layer);
        }
        Ok::<_, Cause>(())
    })?;

    let image = Reference { digest: top.digest, size: top.bytes.len() as u64 };
    let changed = store.find(name)?.is_none_or(|stored| stored.reference != image);
    if changed {
        store.set_name(name, &image, &top.media_type)?;
    }
    Ok(Pulled { digest: image.digest.to_string(), changed })
}

/// Follows indexes to the image for `platform`, stores the documents, and returns its manifest, and the
/// blobs without repetitions, the configuration first.
fn image_of(
    repository: &Repository,
    store: &Store,
    platform: &Platform,
    top: &Manifest,
) -> Result<(Reference, Vec<Reference>), Cause> {
    let mut bytes = top.bytes.clone();
    let mut digest = top.digest.clone();
    for _ in 0..=MAX_INDEX_DEPTH {
        let found = references(&bytes, &digest.to_string(), Some(platform))?;
        store.put_document(&digest, &bytes)?;
        match found {
            References::Blobs(blobs) => {
                let mut seen = BTreeSet::new();
                let blobs = blobs.into_iter().filter(|blob| seen.insert(blob.digest.clone())).collect();
                return Ok((Reference { digest, size: bytes.len() as u64 }, blobs));
            }
            References::Manifests(suitable) => {
                let best = suitable.into_iter().next().expect("none is an error");
                bytes = match store.read_document(&best.digest, MAX_DOCUMENT_SIZE) {
                    Some(bytes) => bytes,
                    None => with_retries(|| repository.manifest(&best.digest.to_string()))?.bytes,
                };
                digest = best.digest;
            }
        }
    }
    Err(Cause::TooDeep)
}

/// The download of one image's blobs.
struct Download<'a> {
    repository: &'a Repository,
    store: &'a Store,
    done: &'a AtomicU64,
    total: u64,
    progress: Option<&'a (dyn Fn(PullProgress) + Sync)>,
    /// Set when one blob failed, so that the others end.
    stop: &'a AtomicBool,
}

impl Download<'_> {
    fn blob(&self, blob: &Reference) -> Result<(), Cause> {
        let mut partial = match self.store.claim(blob)? {
            Claim::Complete => {
                self.advance(blob.size);
                return Ok(());
            }
            Claim::Held(partial) => partial,
        };
        self.advance(partial.length());
        self.receive(blob, &mut partial)?;
        match partial.publish()? {
            Ok(()) => Ok(()),
            Err(actual) => Err(Cause::Digest { digest: blob.digest.to_string(), actual: actual.to_string() }),
        }
    }

    /// Converts a layer that is here. A pull does not fail by that: the conversion of the image tries it again.
    fn convert(&self, ahead: &LayersAhead, layer: &Reference) {
        let read = |bytes| {
            if let Some(progress) = self.progress
                && self.done.load(Ordering::Relaxed) == self.total
            {
                progress(PullProgress::Unpacking { bytes, total: self.total });
            }
        };
        if let Err(error) = ahead.convert(&layer.digest, &|| self.stop.load(Ordering::Relaxed), &read) {
            log::debug!("{}: not converted yet: {error:?}", layer.digest);
        }
    }

    /// Requests the rest of a blob until all of it is here.
    fn receive(&self, blob: &Reference, partial: &mut Partial) -> Result<(), Cause> {
        let mut attempts = Attempts::new();
        loop {
            let before = partial.length();
            let failure = match self.receive_once(blob, partial) {
                Ok(()) if partial.length() == blob.size => return Ok(()),
                // The connection ended in time, or the process is about to.
                Ok(()) if self.stop.load(Ordering::Relaxed) => return Ok(()),
                Ok(()) => None,
                Err(Cause::Client(error)) if error.is_temporary() => Some(error),
                Err(error) => return Err(error),
            };
            if !attempts.again(partial.length() > before) {
                let (attempts, length, size) = (attempts.made(), partial.length(), blob.size);
                let broken = || Cause::Broken { digest: blob.digest.to_string(), attempts, length, size };
                return Err(failure.map_or_else(broken, Cause::Client));
            }
            if let Some(error) = failure {
                log::debug!("{}: {error}; trying again", blob.digest);
            }
        }
    }

    /// One request. An end of the connection is no error: the caller looks at the length.
    fn receive_once(&self, blob: &Reference, partial: &mut Partial) -> Result<(), Cause> {
        let (mut body, start) = self.repository.blob(&blob.digest, partial.length())?;
        if start != partial.length() {
            self.done.fetch_sub(partial.length(), Ordering::Relaxed);
            partial.restart().map_err(Cause::Write)?;
            if start != 0 {
                return Ok(());
            }
        }
        let mut buffer = vec![0; READ_BUF_SIZE];
        let (mut period, mut period_bytes) = (Instant::now(), 0);
        while !self.stop.load(Ordering::Relaxed) {
            let count = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    log::debug!("{}: {error}", blob.digest);
                    break;
                }
            };
            if partial.length() + count as u64 > blob.size {
                return Err(Cause::TooLong { digest: blob.digest.to_string(), size: blob.size });
            }
            partial.append(&buffer[..count])?;
            self.advance(count as u64);
            period_bytes += count as u64;
            if period.elapsed() >= RATE_PERIOD {
                if period_bytes < MIN_BYTES_PER_PERIOD && partial.length() < blob.size {
                    return Err(Cause::TooSlow { digest: blob.digest.to_string() });
                }
                (period, period_bytes) = (Instant::now(), 0);
            }
        }
        Ok(())
    }

    fn advance(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if let Some(progress) = self.progress {
            progress(PullProgress::Downloading { bytes: done, total: self.total });
        }
    }
}
