// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `image`: docker's group of the verbs for images.

use super::history::{self, HistoryArguments};
use super::image_check::{self, CheckArguments};
use super::image_export::{self, ExportArguments};
use super::image_inspect::{self, InspectArguments};
use super::images::{self, ImagesArguments};
use super::import::{self, ImportArguments};
use super::load::{self, LoadArguments};
use super::prune::{self, PruneArguments};
use super::pull::{self, PullArguments};
use super::push::{self, PushArguments};
use super::rmi::{self, RmiArguments};
use super::save::{self, SaveArguments};
use super::tag::{self, TagArguments};
use clap::{Args, Subcommand};

/// Manage the images in the local store
#[derive(Debug, Args)]
pub(super) struct ImageArguments {
    #[command(subcommand)]
    verb: ImageVerb,
}

#[derive(Debug, Subcommand)]
enum ImageVerb {
    #[command(visible_alias = "list")]
    Ls(ImagesArguments),
    Pull(PullArguments),
    Push(PushArguments),
    Tag(TagArguments),
    Inspect(InspectArguments),
    History(HistoryArguments),
    Load(LoadArguments),
    Import(ImportArguments),
    Save(SaveArguments),
    Export(ExportArguments),
    #[command(visible_alias = "remove")]
    Rm(RmiArguments),
    Prune(PruneArguments),
    Check(CheckArguments),
}

/// Executes the verb and returns the exit status.
pub(super) fn image(arguments: &ImageArguments) -> u8 {
    match &arguments.verb {
        ImageVerb::Ls(arguments) => images::images(arguments),
        ImageVerb::Pull(arguments) => pull::pull(arguments),
        ImageVerb::Push(arguments) => push::push(arguments),
        ImageVerb::Tag(arguments) => tag::tag(arguments),
        ImageVerb::Inspect(arguments) => image_inspect::inspect(arguments),
        ImageVerb::History(arguments) => history::history(arguments),
        ImageVerb::Load(arguments) => load::load(arguments),
        ImageVerb::Import(arguments) => import::import(arguments),
        ImageVerb::Save(arguments) => save::save(arguments),
        ImageVerb::Export(arguments) => image_export::export(arguments),
        ImageVerb::Rm(arguments) => rmi::rmi(arguments),
        ImageVerb::Prune(arguments) => prune::prune(arguments),
        ImageVerb::Check(arguments) => image_check::check(arguments),
    }
}
