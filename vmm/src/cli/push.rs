// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `push`, also `image push`: brings an image of the local store to a registry.

use super::images::{TlsArgument, find, parse_name};
use super::machines::{json_text, print};
use crate::config::platform::PlatformChoice;
use crate::host::directories::Directories;
use crate::run::failure::{self, FailsAs as _, Failure};
use crate::run::progress::ProgressLine;
use crate::run::stored_image;
use crate::state::end::EndReason;
use clap::Args;
use oci_image::ImageName;
use registry::{Credentials, Push, Pushed, Registries};
use serde_json::json;

/// Push an image of the local store to a registry
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coracle push localhost:5000/team/app:1
  coracle push app:1 ghcr.io/OWNER/app:1

Credentials are those of `docker login` and `podman login`.")]
pub(super) struct PushArguments {
    /// The image
    #[arg(value_name = "NAME")]
    name: String,
    /// Its name in the registry [default: NAME]
    #[arg(value_name = "REGISTRY/NAME[:TAG]")]
    target: Option<String>,
    /// Of an image for several platforms that are not all here, this one
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<PlatformChoice>,
    #[command(flatten)]
    tls: TlsArgument,
    /// Print only the digest
    #[arg(short, long)]
    quiet: bool,
    /// Print one JSON object
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
}

/// Pushes the image and returns the exit status.
pub(super) fn push(arguments: &PushArguments) -> u8 {
    super::logging::start(Default::default());
    match try_push(arguments) {
        Ok((target, pushed)) => {
            print(&render(&target, &pushed, arguments));
            0
        }
        Err(failure) => failure::fail(&failure),
    }
}

fn try_push(arguments: &PushArguments) -> Result<(ImageName, Pushed), Failure> {
    let store = stored_image::store(&Directories::from_environment())?;
    let image = find(&store, &arguments.name)?;
    let text = arguments.target.as_deref().unwrap_or(&image.name);
    let target = parse_name(text)?;
    if target.digest().is_some() {
        let error = format!("{text}: an image is pushed under a tag, not a digest");
        return Err(Failure::new(EndReason::ConfigError, error));
    }
    let platform = arguments.platform.as_ref().map(PlatformChoice::get).unwrap_or_default();
    let progress = ProgressLine::new();
    let what = format!("pushing {}", target.short());
    let pushed = registry::push(&Push {
        image: &image,
        target: &target,
        store: &store,
        platform: &platform,
        credentials: &Credentials::from_environment(),
        registries: &Registries::from_environment().fails_as(EndReason::ConfigError)?,
        verify: arguments.tls.tls_verify,
        progress: &|done, total| progress.show(&what, Some((done, total))),
    });
    Ok((target, pushed.map_err(|error| Failure::new(EndReason::of_image(error.is_host()), error))?))
}

fn render(target: &ImageName, pushed: &Pushed, arguments: &PushArguments) -> String {
    let Pushed { digest, size, sent, mounted, present } = pushed;
    if arguments.quiet {
        return format!("{digest}\n");
    }
    if arguments.json {
        let document = json!({
            "name": target.to_string(),
            "digest": digest.to_string(),
            "size": size,
            "blobs_sent": sent,
            "blobs_mounted": mounted,
            "blobs_present": present,
        });
        return json_text(&document);
    }
    format!("{}: digest: {digest} size: {size}\n", target.short())
}
