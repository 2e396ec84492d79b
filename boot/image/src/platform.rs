// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Operating system and processor, which select one of the images in an index.

use std::fmt;

/// An operating system and a processor architecture, with the names of the OCI image specification
/// (Go's names).
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
    /// Whether an image for `os` and `architecture` runs here. `variant` is the level of the
    /// instruction set: those above v1 are rejected, because the processor may lack them.
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
