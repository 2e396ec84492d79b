// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `image prune`: removes what no name leads to, or all images that no machine uses; and what is converted of images that the
//! store does not have.

use super::machines::{json_text, print};
use super::words;
use crate::host::directories::Directories;
use crate::host::terminal::is_terminal;
use crate::run::failure::{self, FailsAs as _, Failure};
use crate::run::stored_image;
use crate::state::end::EndReason;
use clap::Args;
use oci_image::Pruned;
use registry::{Freed, Store};
use serde::Serialize;
use std::io::BufRead as _;
use std::time::Duration;

/// Between the last start from what is converted and its removal, without `--all`.
const UNUSED: Duration = Duration::from_secs(7 * 24 * 3600);

/// Remove images without a name, and what interrupted downloads left
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coracle image prune
  coracle image prune --all --force

What is converted of images that are not in the store (those of `rmi`, \
directories and archives) is removed, too, if no start has used it for 7 days, \
or with --all. What a running machine uses stays.")]
pub(super) struct PruneArguments {
    /// Remove images with a name, too, unless a running machine uses them, and everything converted
    /// that is not needed then
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Print one JSON object instead of lines
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Default, Serialize)]
struct Outcome {
    untagged: Vec<String>,
    blobs: usize,
    /// Converted, in the cache.
    root_disks: usize,
    layers: usize,
    bytes: u64,
    /// Another process used store or cache: what is not needed stays until the next time.
    busy: bool,
}

/// Removes the images and returns the exit status.
pub(super) fn prune(arguments: &PruneArguments) -> u8 {
    let what = if arguments.all { "all images that no running machine uses" } else { "all images without a name" };
    let outcome = match confirm(arguments.force, "image prune", what) {
        Ok(false) => return 0,
        Ok(true) => try_prune(arguments.all),
        Err(failure) => Err(failure),
    };
    match outcome {
        Ok(outcome) => {
            if outcome.busy && !arguments.json {
                failure::print_error(
                    "another process uses the image store: what is not needed stays until the next prune",
                );
            }
            print(&render(&outcome, arguments.json));
            0
        }
        Err(failure) => failure::fail(&failure),
    }
}

/// Whether `what` is to be removed: asks on the terminal unless it is forced.
pub(super) fn confirm(force: bool, verb: &str, what: &str) -> Result<bool, Failure> {
    if force {
        return Ok(true);
    }
    if !is_terminal(std::io::stdin()) {
        let error = format!("{verb}: standard input is not a terminal to ask on; `--force` does not ask");
        return Err(Failure::new(EndReason::ConfigError, error));
    }
    print(&format!("This removes {what}. Continue? [y/N] "));
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).fails_as(EndReason::HostError)?;
    Ok(["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()))
}

fn try_prune(all: bool) -> Result<Outcome, Failure> {
    let directories = Directories::from_environment();
    let store = stored_image::store(&directories)?;
    let untagged = remove_names(&store, all)?;
    let freed = store.collect().fails_as(EndReason::HostError)?;
    // A pull would convert again what is removed now.
    let pruned = if freed.is_some() { prune_cache(&store, &directories, all)? } else { None };
    let busy = pruned.is_none();
    let (Freed { blobs, bytes }, pruned) = (freed.unwrap_or_default(), pruned.unwrap_or_default());
    let Pruned { root_disks, layers, bytes: of_cache } = pruned;
    Ok(Outcome { untagged, blobs, root_disks, layers, bytes: bytes + of_cache, busy })
}

fn prune_cache(store: &Store, directories: &Directories, all: bool) -> Result<Option<Pruned>, Failure> {
    let Ok(cache) = directories.cache() else { return Ok(Some(Pruned::default())) };
    let needed = store.diff_ids().fails_as(EndReason::HostError)?;
    oci_image::prune_cache(&cache, &needed, if all { Duration::ZERO } else { UNUSED }).fails_as(EndReason::HostError)
}

fn remove_names(store: &Store, all: bool) -> Result<Vec<String>, Failure> {
    let mut removed = Vec::new();
    for image in store.images().fails_as(EndReason::HostError)? {
        let is_nameless = image.name.starts_with('@');
        if (all || is_nameless)
            && !store.is_in_use(&image.reference)
            && store.remove_name(&image.name).fails_as(EndReason::HostError)?
        {
            removed.push(image.name);
        }
    }
    Ok(removed)
}

fn render(outcome: &Outcome, json: bool) -> String {
    if json {
        return json_text(outcome);
    }
    let untagged: String = outcome.untagged.iter().map(|name| format!("Untagged: {name}\n")).collect();
    format!("{untagged}Total reclaimed space: {}\n", words::decimal_size(outcome.bytes))
}
