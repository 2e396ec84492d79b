// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Writes the files of an image as a disk or an archive: its root disk, which the cache keeps, or what is made of it.

use super::failure::{FailsAs as _, Failure};
use super::progress::ProgressLine;
use super::root_disk;
use super::stored_image::{self, Located};
use crate::config::request::Request;
use crate::host::atomic_write::AtomicFile;
use crate::host::directories::Directories;
use crate::state::end::EndReason;
use clap::ValueEnum;
use oci_image::{ImageReference, Prepare, PreparedImage, RootFormat};
use std::error::Error;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

const WRITE_BUF_SIZE: usize = 256 << 10;

/// What an image is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// A disk that can be written to, with free space.
    Ext4,
    Erofs,
    Squashfs,
    /// An archive of the files.
    Tar,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}")]
struct ExportError {
    path: PathBuf,
    source: Box<dyn Error + Send + Sync>,
}

/// An image and its root disk.
pub(crate) struct Exported {
    format: ExportFormat,
    prepared: PreparedImage,
    progress: ProgressLine,
}

impl Exported {
    /// Finds the image that `request` names, pulls it if need be, and converts it.
    pub(crate) fn prepare(image: &str, request: &Request, format: ExportFormat) -> Result<Self, Failure> {
        let (directories, progress) = (Directories::from_environment(), ProgressLine::new());
        let reference: ImageReference = image.parse().fails_as(EndReason::ConfigError)?;
        let cache = directories.cache().fails_as(EndReason::HostError)?;
        let Located { reference, store: _in_use, .. } =
            stored_image::locate(reference, request, &directories, &progress)?;
        root_disk::raise_descriptor_limit();
        let show = |step| progress.show_image(step);
        let prepared = oci_image::prepare(&Prepare {
            reference: &reference,
            cache: &cache,
            platform: request.platform(),
            format: if format == ExportFormat::Squashfs { RootFormat::Squashfs } else { RootFormat::Erofs },
            progress: Some(&show),
        });
        let prepared = prepared.map_err(|error| Failure::new(EndReason::of_image(error.is_host()), error))?;
        Ok(Self { format, prepared, progress })
    }

    /// Writes the file, which appears complete.
    pub(crate) fn write(self, path: &Path) -> Result<(), Failure> {
        let failed = |reason, source: Box<dyn Error + Send + Sync>| {
            Failure::new(reason, ExportError { path: path.to_owned(), source })
        };
        let io_failed = |error: io::Error| failed(EndReason::HostError, error.into());
        let mut output = AtomicFile::create(path).map_err(io_failed)?;
        match self.format {
            ExportFormat::Tar => self.write_archive(&mut output)?,
            ExportFormat::Erofs | ExportFormat::Squashfs => {
                self.prepared.root_disk.copy_to(output.file()).map_err(io_failed)?;
            }
            ExportFormat::Ext4 => {
                let PreparedImage { root_disk, image_digest, .. } = self.prepared;
                let show = |done, total| self.progress.show("writing blocks", Some((done, total)));
                oci_image::export_ext4(root_disk, &image_digest, output.file(), &show)
                    .map_err(|error| failed(EndReason::of_image(error.is_host()), error.into()))?;
            }
        }
        output.publish().map_err(io_failed)
    }

    /// Writes a tar archive, whatever the format is.
    pub(crate) fn write_archive(self, output: impl Write) -> Result<(), Failure> {
        let output = BufWriter::with_capacity(WRITE_BUF_SIZE, output);
        oci_image::export_tar(self.prepared.root_disk, output)
            .map_err(|error| Failure::new(EndReason::of_image(error.is_host()), error))
    }
}
