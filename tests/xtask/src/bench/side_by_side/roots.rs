// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The root disks that Coracle made of the images, for the monitors that make none.

use super::coracle::Coracle;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One of each image.
pub(super) struct Roots(BTreeMap<&'static str, PathBuf>);

impl Roots {
    /// Has those made that are not there.
    pub(super) fn of(coracle: &Coracle) -> Result<Roots> {
        let images = ["busybox", "fio"];
        images.into_iter().map(|image| Ok((image, coracle.root_disk(image)?))).collect::<Result<_>>().map(Roots)
    }

    /// Path of an EROFS file system.
    pub(super) fn disk(&self, image: &str) -> Result<&Path> {
        self.0.get(image).map(PathBuf::as_path).with_context(|| format!("no root disk of the image {image}"))
    }
}
