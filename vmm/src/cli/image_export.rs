// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `image export`: writes the files of an image as a disk or an archive.

use super::machines;
use crate::config::platform::PlatformChoice;
use crate::config::pull_policy::PullPolicy;
use crate::config::request::Request;
use crate::host::terminal::is_terminal;
use crate::run::export::{ExportFormat, Exported};
use crate::run::failure::Failure;
use crate::state::end::EndReason;
use clap::{Args, ValueHint};
use std::io;
use std::path::PathBuf;

/// Write the files of an image as a disk or a tar archive
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coracle image export --format ext4 python p.ext4
  coracle run --rootfs p.ext4 python3 -c 'print(1)'
  coracle image export python - | tar -t

An ext4 disk has a journal, and free space of an eighth of its content and \
16 MiB. The same image gives the same bytes.")]
pub(super) struct ExportArguments {
    /// What is written
    #[arg(long, value_name = "FORMAT", default_value = "tar")]
    format: ExportFormat,
    /// The image, as `run` takes it
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Where it is written; `-` is standard output, for tar
    #[arg(value_name = "FILE|-", value_hint = ValueHint::FilePath)]
    output: PathBuf,
    /// When an image by name is pulled from its registry: always, missing or never [default: missing]
    #[arg(long, value_name = "WHEN")]
    pull: Option<PullPolicy>,
    /// Of an image for several platforms, the one that is written
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<PlatformChoice>,
}

/// Writes the file and returns the exit status.
pub(super) fn export(arguments: &ExportArguments) -> u8 {
    super::logging::start(Default::default());
    machines::status(try_export(arguments))
}

fn try_export(arguments: &ExportArguments) -> Result<(), Failure> {
    let ExportArguments { format, image, output, pull, platform } = arguments;
    let to_standard_output = output.as_os_str() == "-";
    let refused = |error: &str| Err(Failure::new(EndReason::ConfigError, error));
    if to_standard_output && *format != ExportFormat::Tar {
        return refused("image export: only tar can be written to standard output");
    }
    if to_standard_output && is_terminal(io::stdout()) {
        return refused("image export: standard output is a terminal; give a file or a redirection");
    }
    let request =
        Request { pull: pull.map(Into::into), platform: platform.clone().map(Into::into), ..Request::default() };
    let exported = Exported::prepare(image, &request, *format)?;
    match to_standard_output {
        true => exported.write_archive(io::stdout().lock()),
        false => exported.write(output),
    }
}
