// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `image inspect`: what an image's documents say, in the fields of docker's.

use super::images::{describe, find};
use super::machines::{json_text, print};
use crate::config::platform::PlatformChoice;
use crate::host::directories::Directories;
use crate::run::failure::{self, FailsAs as _, Failure};
use crate::run::stored_image;
use crate::state::end::EndReason;
use clap::Args;
use oci_image::{ImageName, Platform};
use registry::Store;
use serde_json::{Value, json};

/// Print what images are made of, as JSON
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coracle image inspect alpine
  coracle image inspect alpine | jq -r '.[0].Config.Env[]'")]
pub(super) struct InspectArguments {
    /// The images
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Of an image for several platforms, this one
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<PlatformChoice>,
}

/// Prints one JSON array and returns the exit status.
pub(super) fn inspect(arguments: &InspectArguments) -> u8 {
    let platform = arguments.platform.as_ref().map(PlatformChoice::get).unwrap_or_default();
    let store = match stored_image::store(&Directories::from_environment()) {
        Ok(store) => store,
        Err(failure) => return failure::fail(&failure),
    };
    let (mut found, mut status) = (Vec::new(), 0);
    for name in &arguments.names {
        match inspect_one(&store, name, &platform) {
            Ok(image) => found.push(image),
            Err(failure) => status = failure::fail(&failure),
        }
    }
    print(&json_text(&found));
    status
}

fn inspect_one(store: &Store, text: &str, platform: &Platform) -> Result<Value, Failure> {
    let image = find(store, text)?;
    let described = describe(store, &image, platform)?;
    let all = store.images().fails_as(EndReason::HostError)?;
    let same = all.iter().filter(|other| other.reference == image.reference);
    let names: Vec<ImageName> = same.filter_map(|other| ImageName::parse(&other.name).ok()).collect();
    let digest = &image.reference.digest;
    let mut repositories: Vec<String> = names.iter().map(ImageName::short_repository).collect();
    repositories.sort();
    repositories.dedup();
    let tags = names.iter().filter(|name| name.digest().is_none());
    let usage = store.usage().fails_as(EndReason::HostError)?.get(digest).copied().unwrap_or_default();
    let document = &described.document;
    let text = |key: &str| document.get(key).and_then(Value::as_str).unwrap_or_default();
    Ok(json!({
        "Id": described.config.digest.to_string(),
        "RepoTags": tags.map(ImageName::short).collect::<Vec<_>>(),
        "RepoDigests": repositories.iter().map(|name| format!("{name}@{digest}")).collect::<Vec<_>>(),
        "Manifest": described.manifest.to_string(),
        "Created": document.get("created").cloned().unwrap_or_default(),
        "Author": text("author"),
        "Architecture": text("architecture"),
        "Variant": text("variant"),
        "Os": text("os"),
        "Size": described.layers.iter().map(|layer| layer.size).sum::<u64>(),
        "SharedSize": usage.shared,
        "OwnSize": usage.own,
        "Config": document.get("config").cloned().unwrap_or_else(|| json!({})),
        "RootFS": {
            "Type": "layers",
            "Layers": document.pointer("/rootfs/diff_ids").cloned().unwrap_or_else(|| json!([])),
        },
    }))
}
