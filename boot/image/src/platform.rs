// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which of the images in an index is meant: operating system and processor.

use std::fmt;

/// An operating system and a processor architecture, in the words of the OCI image specification (Go's names).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// For example `linux`.
    pub os: String,
    /// For example `amd64`.
    pub architecture: String,
}

impl Default for Platform {
    fn default() -> Self {
        Self { os: "linux".into(), architecture: "amd64".into() }
    }
}

impl Platform {
    /// Whether an image for `os` and `architecture` runs here. `variant` is the level of the instruction set: the
    /// ones above v1 are not offered, because the processor is not known to have them.
    pub(crate) fn accepts(&self, os: &str, architecture: &str, variant: &str) -> bool {
        self.os == os
            && self.architecture == architecture
            && (architecture != "amd64" || variant.is_empty() || variant == "v1")
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}
