// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `images`, also `image ls`: the names in the local store.

use super::machines::{json_text, print};
use super::{table, words};
use crate::host::directories::Directories;
use crate::run::failure::{self, FailsAs as _, Failure};
use crate::run::stored_image;
use crate::state::end::EndReason;
use clap::{ArgAction, Args};
use oci_image::{ImageName, Platform};
use registry::{DescribeError, Description, Store, StoredImage, Usage};
use serde::Serialize;

/// Hexadecimal digits of a digest in the table, as docker shows them.
const SHORT_DIGITS: usize = 12;
/// Of a digest that stands for an image.
const MIN_DIGITS: usize = 4;

/// Of the verbs that reach a registry.
#[derive(Debug, Args)]
pub(super) struct TlsArgument {
    /// Whether the registry's certificate is checked; if not, plain HTTP is accepted too
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set, num_args = 0..=1,
        require_equals = true, default_missing_value = "true")]
    pub(super) tls_verify: bool,
}

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
    name: String,
    repository: String,
    tag: Option<String>,
    digest: String,
    /// Of its compressed layers and documents, those that others share included.
    size: u64,
    /// Of the part that other images have, too, and of the rest.
    shared_size: u64,
    own_size: u64,
    /// A running machine uses it.
    in_use: bool,
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
    let usage = store.usage().fails_as(EndReason::HostError)?;
    Ok(images
        .iter()
        .map(|image| {
            let usage = usage.get(&image.reference.digest).copied().unwrap_or_default();
            line(image, usage, store.is_in_use(&image.reference))
        })
        .collect())
}

fn line(image: &StoredImage, usage: Usage, in_use: bool) -> ImageLine {
    let name = ImageName::parse(&image.name).ok();
    ImageLine {
        name: image.name.clone(),
        repository: name.as_ref().map_or_else(|| "<none>".to_owned(), ImageName::short_repository),
        tag: name.as_ref().and_then(ImageName::tag).map(str::to_owned),
        digest: image.reference.digest.to_string(),
        size: usage.shared + usage.own,
        shared_size: usage.shared,
        own_size: usage.own,
        in_use,
    }
}

fn render(lines: &[ImageLine], arguments: &ImagesArguments) -> String {
    if arguments.json {
        return json_text(lines);
    }
    if arguments.quiet {
        return lines.iter().map(|line| format!("{}\n", table::cell(&line.name, None))).collect();
    }
    let rows: Vec<[String; 5]> = lines
        .iter()
        .map(|line| {
            let hex = line.digest.rsplit(':').next().unwrap_or_default();
            let digest = if arguments.no_trunc { &line.digest } else { &hex[..SHORT_DIGITS.min(hex.len())] };
            let tag = line.tag.as_deref().unwrap_or("<none>");
            let [size, own] = [line.size, line.own_size].map(words::decimal_size);
            [table::cell(&line.repository, None), tag.to_owned(), digest.to_owned(), size, own]
        })
        .collect();
    table::render(["REPOSITORY", "TAG", "DIGEST", "SIZE", "OWN SIZE"], &rows)
}

/// Parses the name of an image.
pub(super) fn parse_name(text: &str) -> Result<ImageName, Failure> {
    let name = text.strip_prefix("docker://").unwrap_or(text);
    let invalid = |error| Failure::new(EndReason::ConfigError, format!("{text}: {error}"));
    ImageName::parse(name).map_err(invalid)
}

/// Parses the name that an image gets.
pub(super) fn parse_new_name(text: &str) -> Result<ImageName, Failure> {
    let name = parse_name(text)?;
    match name.digest() {
        Some(_) => Err(Failure::new(EndReason::ConfigError, format!("{text}: a new name has no digest"))),
        None => Ok(name),
    }
}

/// Finds an image of the store by any form of its name, or by its digest.
pub(super) fn find(store: &Store, text: &str) -> Result<StoredImage, Failure> {
    Ok(find_all(store, text)?.swap_remove(0))
}

/// Finds an image with all of its names if `text` is its digest, or the beginning of that.
pub(super) fn find_all(store: &Store, text: &str) -> Result<Vec<StoredImage>, Failure> {
    let images = store.images().fails_as(EndReason::HostError)?;
    let name = parse_name(text);
    if let Ok(name) = &name
        && let Some(image) = images.iter().find(|image| image.name == name.to_string())
    {
        return Ok(vec![image.clone()]);
    }
    let of_digest = by_digest(&images, text);
    let Some(first) = of_digest.first() else {
        let name = name.map(|_| ());
        return Err(name.err().unwrap_or_else(|| no_such_image(text)));
    };
    if of_digest.iter().any(|image| image.reference != first.reference) {
        let error = format!("{text}: several images have digests that begin so");
        return Err(Failure::new(EndReason::ConfigError, error));
    }
    Ok(of_digest)
}

fn by_digest(images: &[StoredImage], text: &str) -> Vec<StoredImage> {
    let digits = text.trim_start_matches('@');
    let digits = digits.strip_prefix("sha256:").unwrap_or(digits);
    let is_digest = digits.len() >= MIN_DIGITS && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let found = images.iter().filter(|image| is_digest && image.reference.digest.hex().starts_with(digits));
    found.cloned().collect()
}

/// Reads an image's documents.
pub(super) fn describe(store: &Store, image: &StoredImage, platform: &Platform) -> Result<Description, Failure> {
    let failed = |source| Failure::new(EndReason::ImageError, ImageFailure { name: image.name.clone(), source });
    store.describe(image, platform).map_err(failed)
}

#[derive(Debug, thiserror::Error)]
#[error("{name}")]
struct ImageFailure {
    name: String,
    source: DescribeError,
}

fn no_such_image(text: &str) -> Failure {
    Failure::new(EndReason::ConfigError, format!("{text}: not in the local store"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_image::{Digest, Reference};

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
            shared_size: 3_000_000,
            own_size: 400_000,
            in_use: false,
        }];
        let table = render(&lines, &arguments(false, false, false));
        assert_eq!(
            table,
            "\
REPOSITORY   TAG   DIGEST         SIZE    OWN SIZE
alpine       3     abababababab   3.4MB   400kB
"
        );
        assert_eq!(render(&lines, &arguments(false, true, false)), "docker.io/library/alpine:3\n");
        assert!(render(&lines, &arguments(false, false, true)).contains(&lines[0].digest));
        let json: serde_json::Value = serde_json::from_str(&render(&lines, &arguments(true, false, false))).unwrap();
        assert_eq!((&json[0]["repository"], &json[0]["size"]), (&"alpine".into(), &3_400_000.into()));
    }
    #[test]
    fn image_is_found_by_the_beginning_of_its_digest() {
        let image = |name: &str, content: &[u8]| StoredImage {
            name: name.into(),
            reference: Reference { digest: Digest::of(content), size: 1 },
            media_type: String::new(),
        };
        let images = [image("docker.io/library/a:1", b"a"), image("docker.io/library/b:1", b"a"), image("@x", b"b")];
        let hex = Digest::of(b"a").hex().to_owned();
        for text in [&hex[..], &hex[..4], &format!("sha256:{hex}"), &format!("@sha256:{hex}")] {
            assert_eq!(by_digest(&images, text), images[..2], "{text}");
        }
        for text in [&hex[..3], "", "@", "sha256:", "zzzz", &hex.to_uppercase()] {
            assert_eq!(by_digest(&images, text), [], "{text}");
        }
    }
}
