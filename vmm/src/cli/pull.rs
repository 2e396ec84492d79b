// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `pull`: brings images from registries into the local store.

use super::images::TlsArgument;
use super::machines::print_each;
use crate::config::platform::PlatformChoice;
use crate::host::directories::Directories;
use crate::host::signals;
use crate::run::failure::{self, FailsAs as _, Failure};
use crate::run::progress::{self, ProgressLine};
use crate::run::stored_image;
use crate::state::end::EndReason;
use clap::Args;
use oci_image::ImageName;
use registry::Store;
use std::path::Path;

/// Pull images from registries into the local store
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coracle pull alpine
  coracle pull ghcr.io/OWNER/NAME:TAG
  coracle pull --platform linux/amd64/v2 localhost:5000/NAME

Credentials are those of `docker login` and `podman login`.")]
pub(super) struct PullArguments {
    /// Name of the image, as docker takes it
    #[arg(required = true, value_name = "NAME[:TAG|@DIGEST]")]
    names: Vec<String>,
    /// Image for a platform: linux/amd64, or linux/amd64/VARIANT for one that needs at most that (v1 to v4) [default: the
    /// best that the processor runs]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<PlatformChoice>,
    #[command(flatten)]
    tls: TlsArgument,
    /// Print only the complete name
    #[arg(short, long)]
    quiet: bool,
}

/// Pulls the images and returns the exit status.
pub(super) fn pull(arguments: &PullArguments) -> u8 {
    super::logging::start(Default::default());
    let clean_up = || {
        progress::end();
        oci_image::abandon_conversions();
    };
    let directories = Directories::from_environment();
    let store =
        signals::before_end(clean_up).fails_as(EndReason::HostError).and_then(|()| stored_image::store(&directories));
    // Without a cache the layers are only stored.
    let cache = directories.cache().ok();
    match store {
        Ok(store) => {
            print_each(arguments.names.iter().map(|name| pull_one(name, &store, cache.as_deref(), arguments).map(Some)))
        }
        Err(failure) => failure::fail(&failure),
    }
}

/// Returns what is printed, in docker's words.
fn pull_one(text: &str, store: &Store, cache: Option<&Path>, arguments: &PullArguments) -> Result<String, Failure> {
    let name = super::images::parse_name(text)?;
    let platform = arguments.platform.as_ref().map(PlatformChoice::get).unwrap_or_default();
    let verify = arguments.tls.tls_verify;
    let pulled = stored_image::pull(&name, store, &platform, verify, cache, &ProgressLine::new())?;
    Ok(if arguments.quiet { name.to_string() } else { report(&name, &pulled.digest, pulled.changed) })
}

fn report(name: &ImageName, digest: &str, changed: bool) -> String {
    let status = if changed { "Downloaded newer image" } else { "Image is up to date" };
    format!("Digest: {digest}\nStatus: {status} for {}\n{name}", name.short())
}
