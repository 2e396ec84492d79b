// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The root disks that coracle converts the images to, for the monitors that cannot.

use super::coracle::Coracle;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// One for each image. Removed when it is dropped.
pub(super) struct Roots {
    disks: BTreeMap<&'static str, PathBuf>,
    _directory: TempDir,
}

impl Roots {
    /// Lets coracle convert the images that are not in its cache.
    pub(super) fn of(coracle: &Coracle) -> Result<Roots> {
        let directory = tempfile::tempdir()?;
        let disk = |image| {
            let path = directory.path().join(image).with_extension("erofs");
            coracle.export_root_disk(image, &path)?;
            Ok((image, path))
        };
        let disks = ["busybox", "fio"].into_iter().map(disk).collect::<Result<_>>()?;
        Ok(Roots { disks, _directory: directory })
    }

    /// The path of an EROFS image.
    pub(super) fn disk(&self, image: &str) -> Result<&Path> {
        self.disks.get(image).map(PathBuf::as_path).with_context(|| format!("no root disk of the image {image}"))
    }
}
