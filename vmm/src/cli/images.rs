// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `images`, also `image ls`: the names in the local store.

use super::machines::print;
use super::{table, words};
use crate::host::directories::Directories;
use crate::run::failure::{self, FailsAs as _, Failure};
use crate::run::stored_image;
use crate::state::end::EndReason;
use clap::Args;
use oci_image::ImageName;
use registry::{Store, StoredImage};
use serde::Serialize;

/// Hexadecimal digits of a digest in the table, as docker shows them.
const SHORT_DIGITS: usize = 12;

/// List the images in the local store
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coracle images
  coracle images --json | jq -r '.[].name'")]
pub(super) struct ImagesArguments {
    /// Print one JSON array instead of a table
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
    /// Print only the names
    #[arg(short, long)]
    quiet: bool,
    /// Show complete digests
    #[arg(long)]
    no_trunc: bool,
}

/// One image, as JSON.
#[derive(Debug, Serialize)]
struct ImageLine {
    /// Complete.
    name: String,
    repository: String,
    tag: Option<String>,
    digest: String,
    /// Of its compressed layers and documents, those that others share included.
    size: u64,
}

/// Prints the images and returns the exit status.
pub(super) fn images(arguments: &ImagesArguments) -> u8 {
    match lines() {
        Ok(lines) => {
            print(&render(&lines, arguments));
            0
        }
        Err(failure) => failure::fail(&failure),
    }
}

fn lines() -> Result<Vec<ImageLine>, Failure> {
    let store = stored_image::store(&Directories::from_environment())?;
    let mut images = store.images().fails_as(EndReason::HostError)?;
    images.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(images.iter().map(|image| line(&store, image)).collect())
}

fn line(store: &Store, image: &StoredImage) -> ImageLine {
    let name = ImageName::parse(&image.name).ok();
    ImageLine {
        name: image.name.clone(),
        repository: name.as_ref().map_or_else(|| "<none>".to_owned(), ImageName::short_repository),
        tag: name.as_ref().and_then(ImageName::tag).map(str::to_owned),
        digest: image.reference.digest.to_string(),
        size: store.size_of(image),
    }
}

fn render(lines: &[ImageLine], arguments: &ImagesArguments) -> String {
    if arguments.json {
        return serde_json::to_string_pretty(lines).expect("the fields are strings and numbers") + "\n";
    }
    if arguments.quiet {
        return lines.iter().map(|line| format!("{}\n", table::cell(&line.name, None))).collect();
    }
    let rows: Vec<[String; 4]> = lines
        .iter()
        .map(|line| {
            let hex = line.digest.rsplit(':').next().unwrap_or_default();
            let digest = if arguments.no_trunc { &line.digest } else { &hex[..SHORT_DIGITS.min(hex.len())] };
            let tag = line.tag.as_deref().unwrap_or("<none>");
            [table::cell(&line.repository, None), tag.to_owned(), digest.to_owned(), words::decimal_size(line.size)]
        })
        .collect();
    table::render(["REPOSITORY", "TAG", "DIGEST", "SIZE"], &rows)
}

/// Parses the name of an image.
pub(super) fn parse_name(text: &str) -> Result<ImageName, Failure> {
    let name = text.strip_prefix("docker://").unwrap_or(text);
    let invalid = |error| Failure::new(EndReason::ConfigError, format!("{text}: {error}"));
    ImageName::parse(name).map_err(invalid)
}

/// Finds an image of the store by any form of its name.
pub(super) fn find(store: &Store, text: &str) -> Result<StoredImage, Failure> {
    let by_digest = |images: Vec<StoredImage>| images.into_iter().find(|image| image.name == text);
    if text.starts_with('@') {
        let found = by_digest(store.images().fails_as(EndReason::HostError)?);
        return found.ok_or_else(|| no_such_image(text));
    }
    let name = parse_name(text)?;
    store.find(&name).fails_as(EndReason::HostError)?.ok_or_else(|| no_such_image(text))
}

fn no_such_image(text: &str) -> Failure {
    Failure::new(EndReason::ConfigError, format!("{text}: not in the local store"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(json: bool, quiet: bool, no_trunc: bool) -> ImagesArguments {
        ImagesArguments { json, quiet, no_trunc }
    }

    #[test]
    fn images_are_shown_in_dockers_columns() {
        let lines = [ImageLine {
            name: "docker.io/library/alpine:3".into(),
            repository: "alpine".into(),
            tag: Some("3".into()),
            digest: format!("sha256:{}", "ab".repeat(32)),
            size: 3_400_000,
        }];
        let table = render(&lines, &arguments(false, false, false));
        assert_eq!(table, "REPOSITORY   TAG   DIGEST         SIZE\nalpine       3     abababababab   3.4MB\n");
        assert_eq!(render(&lines, &arguments(false, true, false)), "docker.io/library/alpine:3\n");
        assert!(render(&lines, &arguments(false, false, true)).contains(&lines[0].digest));
        let json: serde_json::Value = serde_json::from_str(&render(&lines, &arguments(true, false, false))).unwrap();
        assert_eq!((&json[0]["repository"], &json[0]["size"]), (&"alpine".into(), &3_400_000.into()));
    }
}
