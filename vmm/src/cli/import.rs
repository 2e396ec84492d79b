// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `import`, also `image import`: makes an image of a root file system in a tar archive.

use super::images::parse_new_name;
use super::machines::print_outcome;
use crate::config::image_change::ImageChange;
use crate::config::rfc3339;
use crate::host::directories::Directories;
use crate::host::terminal::is_terminal;
use crate::run::failure::{FailsAs as _, Failure};
use crate::run::progress::ProgressLine;
use crate::run::stored_image;
use crate::state::end::EndReason;
use clap::{Args, ValueHint};
use oci_image::{Contents, ImageError, ImageName, ImportedConfig};
use registry::LoadError;
use serde_json::Map;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Make an image of a root file system in a tar archive
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  docker export web | coracle import -c 'CMD [\"nginx\"]' - web:1
  coracle import rootfs.tar.gz base

The archive is plain, gzip or zstd. An image without a name is found by its \
digest, which is printed.")]
pub(super) struct ImportArguments {
    /// The archive; `-` is standard input
    #[arg(value_name = "FILE|-", value_hint = ValueHint::FilePath)]
    archive: PathBuf,
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
}

#[derive(Debug, thiserror::Error)]
#[error("cannot import {archive}")]
struct ImportError {
    archive: String,
    source: LoadError,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot open {path}")]
struct OpenError {
    path: PathBuf,
    source: std::io::Error,
}

/// Imports the archive, prints the image's digest and returns the exit status.
pub(super) fn import(arguments: &ImportArguments) -> u8 {
    super::logging::start(Default::default());
    print_outcome(try_import(arguments))
}

fn try_import(arguments: &ImportArguments) -> Result<String, Failure> {
    let name = arguments.name.as_deref().map(parse_new_name).transpose()?;
    let is_standard_input = arguments.archive.as_os_str() == "-";
    if is_standard_input && is_terminal(std::io::stdin()) {
        let error = "import: standard input is a terminal; give an archive by its name or by a redirection";
        return Err(Failure::new(EndReason::ConfigError, error));
    }
    let archive = if is_standard_input { Path::new("standard input") } else { &arguments.archive };
    let failed = |source: LoadError| {
        let reason = EndReason::of_image(source.is_host());
        Failure::new(reason, ImportError { archive: archive.display().to_string(), source })
    };
    let opened = match is_standard_input {
        true => std::io::stdin().as_fd().try_clone_to_owned().map(File::from),
        false => File::open(archive),
    };
    let open = |source| OpenError { path: archive.to_owned(), source };
    let file = opened.map_err(open).fails_as(EndReason::ImageError)?;
    let store = stored_image::store(&Directories::from_environment())?;
    store.create().fails_as(EndReason::HostError)?;
    let contents = read(arguments, file, archive, &store.scratch(), name).map_err(|error| failed(error.into()))?;
    let progress = ProgressLine::new();
    let show = |done, total| progress.show("importing", Some((done, total)));
    let loaded = registry::load(&store, &contents, &show).map_err(failed)?;
    Ok(loaded.first().map(|image| image.digest.to_string()).unwrap_or_default())
}

fn read(
    arguments: &ImportArguments,
    file: File,
    archive: &Path,
    scratch: &Path,
    name: Option<ImageName>,
) -> Result<Contents, ImageError> {
    let mut config = Map::new();
    arguments.change.iter().for_each(|change| change.apply(&mut config));
    let comment = arguments.message.clone().unwrap_or_else(|| format!("Imported from {}", archive.display()));
    let created = rfc3339::format(SystemTime::now());
    let imported = ImportedConfig { config: config.into(), created: &created, comment: &comment, name };
    Contents::import(file, archive, scratch, &imported)
}
