// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `rmi`, also `image rm`: removes names from the local store, and the blobs that no other name leads to.

use super::images::find_all;
use super::machines::print;
use crate::host::directories::Directories;
use crate::run::failure::{self, FailsAs as _, Failure};
use crate::run::stored_image;
use crate::state::end::EndReason;
use clap::Args;
use registry::Store;

/// Remove images from the local store
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coracle rmi alpine
  coracle rmi $(coracle images -q)

An image that a running machine uses keeps its last name, or with --force its
files. What another coracle uses at the moment is removed by the next `rmi`.")]
pub(super) struct RmiArguments {
    /// Names of the images, or digests
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Ignore unknown names; remove the last name of an image that a running machine uses, and all names of a digest
    #[arg(short, long)]
    force: bool,
}

/// Removes the images and returns the exit status.
pub(super) fn rmi(arguments: &RmiArguments) -> u8 {
    let store = match stored_image::store(&Directories::from_environment()) {
        Ok(store) => store,
        Err(failure) => return failure::fail(&failure),
    };
    let mut status = 0;
    for name in &arguments.names {
        match remove(&store, name, arguments.force) {
            Ok(names) => names.iter().for_each(|name| print(&format!("Untagged: {name}\n"))),
            Err(failure) => status = failure::fail(&failure),
        }
    }
    match store.collect().fails_as(EndReason::HostError) {
        Ok(_) => status,
        Err(failure) => failure::fail(&failure),
    }
}

/// Returns the complete names that are removed.
fn remove(store: &Store, text: &str, force: bool) -> Result<Vec<String>, Failure> {
    let found = match find_all(store, text) {
        Err(_) if force => return Ok(Vec::new()),
        found => found?,
    };
    let refused = |why: &str| Err(Failure::new(EndReason::ConfigError, format!("{text}: {why}")));
    if found.len() > 1 && !force {
        return refused("the image has several names; `--force` removes all of them");
    }
    let image = &found[0].reference;
    let named = store.images().fails_as(EndReason::HostError)?;
    let names = named.iter().filter(|other| other.reference == *image).count();
    if names == found.len() && !force && store.is_in_use(image) {
        return refused("a running machine uses the image; `--force` removes the name");
    }
    found
        .into_iter()
        .map(|image| store.remove_name(&image.name).fails_as(EndReason::HostError).map(|_| image.name))
        .collect()
}
