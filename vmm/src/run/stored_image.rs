// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Images by name: found in the local store, or pulled into it. Runs on the thread `prepare`, and for the verbs of images on
//! `main`.

use super::failure::{FailsAs as _, Failure};
use super::progress::ProgressLine;
use crate::config::pull_policy::PullPolicy;
use crate::config::request::Request;
use crate::host::directories::Directories;
use crate::state::end::EndReason;
use oci_image::{ImageError, ImageName, ImageReference, Platform};
use registry::{Credentials, InUse, Pull, PullProgress, Pulled, Registries, Store};
use std::path::Path;

/// Opens the store of this user.
pub(crate) fn store(directories: &Directories) -> Result<Store, Failure> {
    Ok(Store::open(&directories.images().fails_as(EndReason::HostError)?))
}

/// Pulls an image and converts its layers into `cache`, with the progress on the terminal. With `verify` false a registry's certificate
/// is not checked.
pub(crate) fn pull(
    name: &ImageName,
    store: &Store,
    platform: &Platform,
    verify: bool,
    cache: Option<&Path>,
    progress: &ProgressLine,
) -> Result<Pulled, Failure> {
    let [pulling, unpacking] = ["pulling", "unpacking"].map(|step| format!("{step} {}", name.short()));
    let show = |step| match step {
        PullProgress::Downloading { bytes, total } => progress.show(&pulling, Some((bytes, total))),
        PullProgress::Unpacking { bytes, total } => progress.show(&unpacking, Some((bytes, total))),
    };
    let credentials = Credentials::from_environment();
    let registries = Registries::from_environment().fails_as(EndReason::ConfigError)?;
    registry::pull(&Pull {
        name,
        store,
        platform,
        credentials: &credentials,
        registries: &registries,
        verify,
        cache,
        progress: Some(&show),
    })
    .map_err(|error| Failure::new(EndReason::of_image(error.is_host()), error))
}

/// An image, and what keeps it in the store.
#[derive(Debug)]
pub(crate) struct Located {
    pub(crate) reference: ImageReference,
    /// Keeps all blobs, while the image is read.
    pub(crate) store: Option<InUse>,
    /// Keeps this image, while a machine runs it.
    pub(crate) image: Option<InUse>,
}

/// Finds an image by name in the store, after a pull if `--pull` and the store require one. Other references stay as they are.
pub(crate) fn locate(
    reference: ImageReference,
    request: &Request,
    directories: &Directories,
    progress: &ProgressLine,
) -> Result<Located, Failure> {
    let ImageReference::Name(name) = reference else { return Ok(Located { reference, store: None, image: None }) };
    let store = store(directories)?;
    let stored = ImageReference::Stored { store: store.directory().to_owned(), name: name.clone() };
    let policy = request.pull.and_then(|pull| pull.get().copied()).unwrap_or_default();
    let platform = request.platform();
    let located = |in_use: InUse| -> Result<Located, Failure> {
        let image = store.find(&name).fails_as(EndReason::HostError)?;
        let image = image.and_then(|image| store.image_in_use(&image.reference));
        Ok(Located { reference: stored.clone(), store: Some(in_use), image })
    };
    if policy != PullPolicy::Always && store.directory().exists() {
        let in_use = store.in_use().fails_as(EndReason::HostError)?;
        if is_complete(&store, &name, &stored, &platform)? {
            return located(in_use);
        }
    }
    if policy == PullPolicy::Never {
        return Err(Failure::new(EndReason::ImageError, ImageError::NotStored(name.short())));
    }
    pull(&name, &store, &platform, true, directories.cache().ok().as_deref(), progress)?;
    located(store.in_use().fails_as(EndReason::HostError)?)
}

/// Whether the store has the name and, for `platform`, documents and layers.
fn is_complete(store: &Store, name: &ImageName, stored: &ImageReference, platform: &Platform) -> Result<bool, Failure> {
    if store.find(name).fails_as(EndReason::HostError)?.is_none() {
        return Ok(false);
    }
    // The store holds no archive, so nothing is unpacked.
    let described = oci_image::describe(stored, platform, store.directory());
    Ok(described.is_ok_and(|image| image.layer_file_bytes.is_some()))
}
