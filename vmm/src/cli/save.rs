// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `save`, also `image save`: writes images of the local store as one archive.

use super::images::find;
use crate::config::platform::PlatformChoice;
use crate::host::atomic_write::AtomicFile;
use crate::host::directories::Directories;
use crate::host::terminal::is_terminal;
use crate::run::failure::{FailsAs as _, Failure};
use crate::run::progress::ProgressLine;
use crate::run::stored_image;
use crate::state::end::EndReason;
use clap::{Args, ValueHint};
use std::io;
use std::path::PathBuf;

/// Write images of the local store to an archive
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coracle save alpine | docker load
  coracle save -o two.tar alpine busybox:1

The archive is an OCI layout with docker's manifest.json: docker, podman, \
skopeo and `coracle load` read it.")]
pub(super) struct SaveArguments {
    /// The images
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Where the archive is written [default: standard output]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    output: Option<PathBuf>,
    /// Of an image for several platforms, the one that manifest.json lists; the archive has all that are here
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<PlatformChoice>,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}")]
pub(super) struct OutputError {
    pub(super) path: PathBuf,
    pub(super) source: io::Error,
}

/// Writes the archive and returns the exit status.
pub(super) fn save(arguments: &SaveArguments) -> u8 {
    super::logging::start(Default::default());
    super::machines::status(try_save(arguments))
}

fn try_save(arguments: &SaveArguments) -> Result<(), Failure> {
    let store = stored_image::store(&Directories::from_environment())?;
    let images = arguments.names.iter().map(|name| find(&store, name)).collect::<Result<Vec<_>, _>>()?;
    let platform = arguments.platform.as_ref().map(PlatformChoice::get).unwrap_or_default();
    let progress = ProgressLine::new();
    let show = |done, total| progress.show("saving images", Some((done, total)));
    let Some(path) = &arguments.output else {
        if is_terminal(io::stdout()) {
            let error = "save: standard output is a terminal; give a file with `-o FILE` or a redirection";
            return Err(Failure::new(EndReason::ConfigError, error));
        }
        let mut output = io::stdout().lock();
        return registry::save(&store, &images, &platform, &mut output, &show).fails_as(EndReason::HostError);
    };
    let failed = |source| OutputError { path: path.clone(), source };
    let mut output = AtomicFile::create(path).map_err(failed).fails_as(EndReason::HostError)?;
    registry::save(&store, &images, &platform, &mut output, &show).fails_as(EndReason::HostError)?;
    output.publish().map_err(failed).fails_as(EndReason::HostError)
}
