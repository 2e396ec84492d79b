// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `load`, also `image load`: takes the images of an archive into the local store.

use super::machines::{json_text, print};
use crate::host::directories::Directories;
use crate::host::terminal::is_terminal;
use crate::run::failure::{self, FailsAs as _, Failure};
use crate::run::progress::ProgressLine;
use crate::run::stored_image;
use crate::state::end::EndReason;
use clap::{Args, ValueHint};
use oci_image::{Contents, ImageError, ImageName};
use registry::{LoadError, Loaded};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Load images from an archive into the local store
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  docker save alpine | coracle load
  coracle load -i images.tar.gz
  coracle load -i LAYOUT-DIRECTORY

Archives are those of `docker save`, `podman save` and `coracle save`, and OCI \
archives; plain, gzip or zstd. An image without a name is found by its digest.")]
pub(super) struct LoadArguments {
    /// Archive or OCI layout directory [default: standard input]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::AnyPath)]
    input: Option<PathBuf>,
    /// Do not show progress
    #[arg(short, long)]
    quiet: bool,
    /// Print one JSON array instead of lines
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct LoadedLine {
    names: Vec<String>,
    digest: String,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot load {archive}")]
struct ArchiveError {
    archive: String,
    source: LoadError,
}

/// Loads the images and returns the exit status.
pub(super) fn load(arguments: &LoadArguments) -> u8 {
    super::logging::start(Default::default());
    match try_load(arguments) {
        Ok(loaded) => {
            print(&render(&loaded, arguments.json));
            0
        }
        Err(failure) => failure::fail(&failure),
    }
}

fn try_load(arguments: &LoadArguments) -> Result<Vec<Loaded>, Failure> {
    let archive = match arguments.input.as_deref() {
        Some(path) if path != Path::new("-") => path,
        _ if is_terminal(std::io::stdin()) => {
            let error = "load: standard input is a terminal; give an archive with `-i FILE` or a redirection";
            return Err(Failure::new(EndReason::ConfigError, error));
        }
        _ => Path::new("standard input"),
    };
    let failed = |source: LoadError| {
        let reason = EndReason::of_image(source.is_host());
        Failure::new(reason, ArchiveError { archive: archive.display().to_string(), source })
    };
    let store = stored_image::store(&Directories::from_environment())?;
    store.create().fails_as(EndReason::HostError)?;
    let contents = open(arguments, archive, &store.scratch()).map_err(|error| failed(error.into()))?;
    let progress = ProgressLine::new();
    let show = |done, total| {
        if !arguments.quiet {
            progress.show("loading images", Some((done, total)));
        }
    };
    registry::load(&store, &contents, &show).map_err(failed)
}

fn open(arguments: &LoadArguments, archive: &Path, scratch: &Path) -> Result<Contents, ImageError> {
    match &arguments.input {
        Some(path) if path == archive => Contents::open(path, scratch),
        _ => Contents::read(std::io::stdin().lock(), archive, scratch),
    }
}

fn render(loaded: &[Loaded], json: bool) -> String {
    if json {
        let lines: Vec<LoadedLine> = loaded
            .iter()
            .map(|image| LoadedLine {
                names: image.names.iter().map(ToString::to_string).collect(),
                digest: image.digest.to_string(),
            })
            .collect();
        return json_text(&lines);
    }
    let lines = loaded.iter().flat_map(|image| match image.names.is_empty() {
        true => vec![format!("Loaded image ID: {}\n", image.digest)],
        false => image.names.iter().map(ImageName::short).map(|name| format!("Loaded image: {name}\n")).collect(),
    });
    lines.collect()
}
