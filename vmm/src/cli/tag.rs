// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `tag`: gives an image of the local store another name.

use super::images::{find, parse_new_name};
use crate::host::directories::Directories;
use crate::run::failure::{self, FailsAs as _, Failure};
use crate::run::stored_image;
use crate::state::end::EndReason;
use clap::Args;

/// Give an image of the local store another name
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  coracle tag alpine registry.example/base/alpine:3")]
pub(super) struct TagArguments {
    /// The image
    #[arg(value_name = "NAME")]
    source: String,
    /// Its other name; an image that has this name loses it
    #[arg(value_name = "NEW")]
    target: String,
}

/// Adds the name and returns the exit status.
pub(super) fn tag(arguments: &TagArguments) -> u8 {
    try_tag(arguments).map_or_else(|failure| failure::fail(&failure), |()| 0)
}

fn try_tag(arguments: &TagArguments) -> Result<(), Failure> {
    let store = stored_image::store(&Directories::from_environment())?;
    let image = find(&store, &arguments.source)?;
    let target = parse_new_name(&arguments.target)?;
    store.set_name(&target, &image.reference, &image.media_type).fails_as(EndReason::HostError)
}
