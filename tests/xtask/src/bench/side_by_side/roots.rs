// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The root disks that coracle converted the images to, for the monitors that cannot.

use super::coracle::Coracle;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One for each image.
pub(super) struct Roots(BTreeMap<&'static str, PathBuf>);

impl Roots {
    /// Lets coracle convert the images that are not in its cache.
    pub(super) fn of(coracle: &Coracle) -> Result<Roots> {
        let images = ["busybox", "fio"];
        images.into_iter().map(|image| Ok((image, coracle.root_disk(image)?))).collect::<Result<_>>().map(Roots)
    }

    /// The path of an EROFS image.
    pub(super) fn disk(&self, image: &str) -> Result<&Path> {
        self.0.get(image).map(PathBuf::as_path).with_context(|| format!("no root disk of the image {image}"))
    }
}
