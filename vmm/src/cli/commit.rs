// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `commit`: makes an image of a machine.

use super::images::parse_new_name;
use super::machines::{RunDirArgument, print_outcome};
use crate::config::image_change::ImageChange;
use crate::run::commit::{self, CommitOptions};
use crate::run::failure::Failure;
use clap::{ArgAction, Args};
use oci_image::Digest;

/// Make an image of a machine, with what it has changed as one more layer
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coracle run --name job alpine apk add curl; coracle commit job alpine:curl
  coracle commit -c 'CMD [\"curl\"]' -m 'with curl' job alpine:curl

Volumes, and all that is mounted, are not in the image. The command, \
environment, user and working directory of the machine become the image's. \
Its digest is printed. A machine that has ended has to be kept (`coracle run \
--name`).")]
pub(super) struct CommitArguments {
    /// Name or container ID of a machine, or an unambiguous beginning
    #[arg(value_name = "MACHINE")]
    machine: String,
    /// Name of the image; an image that has this name loses it
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Set what the image runs by a line of a Dockerfile: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME or
    /// WORKDIR
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<ImageChange>,
    /// Comment in the image's history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Author of the image
    #[arg(short, long, value_name = "TEXT")]
    author: Option<String>,
    /// Hold a machine that runs while its files are copied
    #[arg(
        short,
        long,
        value_name = "BOOL",
        default_value_t = true,
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pause: bool,
    #[command(flatten)]
    run_dir: RunDirArgument,
}

/// Makes the image, prints its digest and returns the exit status.
pub(super) fn commit(arguments: &CommitArguments) -> u8 {
    super::logging::start(Default::default());
    print_outcome(try_commit(arguments))
}

fn try_commit(arguments: &CommitArguments) -> Result<Digest, Failure> {
    let CommitArguments { machine, name, change, message, author, pause, run_dir } = arguments;
    let name = name.as_deref().map(parse_new_name).transpose()?;
    let base = run_dir.absolute_path()?;
    let machine = run_dir.find(machine)?;
    let (message, author) = (message.as_deref(), author.as_deref());
    let options = CommitOptions { name, changes: change, message, author, pauses: *pause };
    commit::commit(&base, &machine, options)
}
