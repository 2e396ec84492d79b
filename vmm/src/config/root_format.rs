// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--root-format`: the file system of the disk that an image is made into. Pure.

use clap::ValueEnum;
use oci_image::RootFormat;
use serde::{Deserialize, Serialize};

/// What was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RootFormatChoice {
    /// What the guest's kernel has.
    #[default]
    Auto,
    /// EROFS.
    Erofs,
    /// Squashfs.
    Squashfs,
}

impl RootFormatChoice {
    /// The format for a kernel whose image `has` these file systems. EROFS comes first; it is also what a kernel gets that
    /// shows neither, because a module may bring it.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_gets_a_format_that_it_has() {
        let for_kernel = |choice: RootFormatChoice, has: &[&str]| choice.for_kernel(|name| has.contains(&name));
        let auto = RootFormatChoice::default();
        assert_eq!(for_kernel(auto, &["erofs", "squashfs", "ext4"]), RootFormat::Erofs);
        assert_eq!(for_kernel(auto, &["squashfs", "ext4"]), RootFormat::Squashfs);
        assert_eq!(for_kernel(auto, &[]), RootFormat::Erofs);
        assert_eq!(for_kernel(RootFormatChoice::Squashfs, &["erofs"]), RootFormat::Squashfs);
        assert_eq!(for_kernel(RootFormatChoice::Erofs, &["squashfs"]), RootFormat::Erofs);
    }
}
