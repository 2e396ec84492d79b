// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `rmi`, also `image rm`: removes names from the local store, and the blobs that no other name leads to.

use super::images::find;
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

Machines that run an image keep it. What another coracle uses at the moment
is removed by the next `rmi`.")]
pub(super) struct RmiArguments {
    /// Names of the images
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Ignore unknown names
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
        match remove(&store, name) {
            Ok(name) => print(&format!("Untagged: {name}\n")),
            Err(_) if arguments.force => {}
            Err(failure) => status = failure::fail(&failure),
        }
    }
    match store.collect().fails_as(EndReason::HostError) {
        Ok(_) => status,
        Err(failure) => failure::fail(&failure),
    }
}

/// Returns the complete name.
fn remove(store: &Store, text: &str) -> Result<String, Failure> {
    let image = find(store, text)?;
    store.remove_name(&image.name).fails_as(EndReason::HostError)?;
    Ok(image.name)
}
