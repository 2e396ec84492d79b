// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--root-format`: the file system of the root disk that an image is converted to. Pure.

use clap::ValueEnum;
use oci_image::RootFormat;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RootFormatChoice {
    /// One that the guest's kernel has.
    #[default]
    Auto,
    Erofs,
    Squashfs,
}

impl RootFormatChoice {
    /// The format for a kernel that has the file systems for which `has` is true. EROFS is preferred, and the choice for a kernel
    /// that shows neither, because a module may bring it.
    #[must_use]
    pub(crate) fn for_kernel(self, has: impl Fn(&str) -> bool) -> RootFormat {
        let [erofs, squashfs] = [RootFormat::Erofs, RootFormat::Squashfs];
        match self {
            Self::Erofs => erofs,
            Self::Squashfs => squashfs,
            Self::Auto if !has(erofs.file_system()) && has(squashfs.file_system()) => squashfs,
            Self::Auto => erofs,
        }
    }
}

impl From<RootFormat> for RootFormatChoice {
    fn from(format: RootFormat) -> Self {
        match format {
            RootFormat::Erofs => Self::Erofs,
            RootFormat::Squashfs => Self::Squashfs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_chooses_a_format_of_the_kernel() {
        let for_kernel = |choice: RootFormatChoice, has: &[&str]| choice.for_kernel(|name| has.contains(&name));
        let auto = RootFormatChoice::default();
        assert_eq!(for_kernel(auto, &["erofs", "squashfs", "ext4"]), RootFormat::Erofs);
        assert_eq!(for_kernel(auto, &["squashfs", "ext4"]), RootFormat::Squashfs);
        assert_eq!(for_kernel(auto, &[]), RootFormat::Erofs);
        assert_eq!(for_kernel(RootFormatChoice::Squashfs, &["erofs"]), RootFormat::Squashfs);
        assert_eq!(for_kernel(RootFormatChoice::Erofs, &["squashfs"]), RootFormat::Erofs);
    }
}
