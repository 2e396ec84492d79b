// SPDX-License-Identifier: Apache-2.0 OR MIT
//! References to images: `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:TAG]`, a
//! path alone, or a name as docker takes it.

use crate::name::{ImageName, NameError};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where an image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageReference {
    /// A directory with `oci-layout`, `index.json` and `blobs`.
    OciLayout { path: PathBuf, tag: Option<String> },
    /// An OCI layout in a tar file, or output of `docker save`.
    OciArchive { path: PathBuf, tag: Option<String> },
    /// Output of `docker save`.
    DockerArchive {
        path: PathBuf,
        /// A tag, or a name with a tag.
        tag: Option<String>,
    },
    /// A name in a registry or in the local store, which the caller resolves to `Stored`.
    Name(ImageName),
    /// An image of the store in this directory.
    Stored { store: PathBuf, name: ImageName },
}

#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    #[error("image `{0}`: no path given; {SUPPORTED}")]
    Empty(String),
    /// A transport of other container tools.
    #[error("image `{0}`: `{1}:` is not supported yet; {SUPPORTED}")]
    Transport(String, String),
    #[error("image `{text}`")]
    InvalidName { text: String, source: NameError },
    /// Neither an existing path, nor a transport, nor a valid name in a registry.
    #[error("image `{0}`: no such file or directory; {SUPPORTED}")]
    Name(String),
    /// A path that does not exist.
    #[error("image `{0}`: no such file or directory")]
    Missing(String),
    #[error("image name contains a NUL byte")]
    Nul,
}

const SUPPORTED: &str = "supported are names, oci:DIR[:TAG], oci-archive:FILE[:TAG] and docker-archive:FILE[:TAG]";
const OTHER_TRANSPORTS: [&str; 6] =
    ["docker-daemon", "containers-storage", "containerd", "dir", "registry", "oci-registry"];

impl ImageReference {
    /// Parses `text`. A path without a prefix must exist; with a prefix it is not checked.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.contains('\0') {
            return Err(ReferenceError::Nul);
        }
        let split = text.split_once(':');
        if let Some((transport, rest)) =
            split.filter(|(transport, _)| ["oci", "oci-archive", "docker-archive"].contains(transport))
        {
            let (path, tag) = split_tag(rest);
            if path.as_os_str().is_empty() {
                return Err(ReferenceError::Empty(text.into()));
            }
            return Ok(match transport {
                "oci" => Self::OciLayout { path, tag },
                "oci-archive" => Self::OciArchive { path, tag },
                _ => Self::DockerArchive { path, tag },
            });
        }
        if text.is_empty() {
            return Err(ReferenceError::Empty(text.into()));
        }
        let (path, tag) = split_tag(text);
        if path.is_dir() {
            return Ok(Self::OciLayout { path, tag });
        }
        if path.exists() {
            // Which of the two kinds of archive it is, its members decide when it is opened.
            return Ok(Self::OciArchive { path, tag });
        }
        match split {
            Some(("docker", name)) if name.starts_with("//") => named(text, &name[2..]),
            Some((transport, _)) if OTHER_TRANSPORTS.contains(&transport) => {
                Err(ReferenceError::Transport(text.into(), transport.into()))
            }
            _ if text.starts_with(['/', '.']) => Err(ReferenceError::Missing(text.into())),
            _ => named(text, text),
        }
    }

    /// The directory or file, if there is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::OciLayout { path, .. } | Self::OciArchive { path, .. } | Self::DockerArchive { path, .. } => {
                Some(path)
            }
            Self::Stored { store, .. } => Some(store),
            Self::Name(_) => None,
        }
    }

    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        match self {
            Self::OciLayout { tag, .. } | Self::OciArchive { tag, .. } | Self::DockerArchive { tag, .. } => {
                tag.as_deref()
            }
            Self::Name(name) | Self::Stored { name, .. } => name.tag(),
        }
    }
}

/// What is not a path may be a name; if it cannot be one, the message is about paths and prefixes.
fn named(text: &str, name: &str) -> Result<ImageReference, ReferenceError> {
    match ImageName::parse(name) {
        Ok(name) => Ok(ImageReference::Name(name)),
        Err(NameError::Malformed) => Err(ReferenceError::Name(text.into())),
        Err(source) => Err(ReferenceError::InvalidName { text: text.into(), source }),
    }
}

/// Splits `PATH[:TAG]` at the first colon, as the container tools do, unless all of it is an
/// existing path.
fn split_tag(text: &str) -> (PathBuf, Option<String>) {
    match text.split_once(':') {
        Some((path, tag)) if !tag.is_empty() && !Path::new(text).exists() => (path.into(), Some(tag.into())),
        Some((path, "")) if !Path::new(text).exists() => (path.into(), None),
        _ => (text.into(), None),
    }
}

impl FromStr for ImageReference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        Self::parse(text)
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (transport, path, tag) = match self {
            Self::OciLayout { path, tag } => ("oci", path, tag),
            Self::OciArchive { path, tag } => ("oci-archive", path, tag),
            Self::DockerArchive { path, tag } => ("docker-archive", path, tag),
            Self::Name(name) | Self::Stored { name, .. } => return f.write_str(&name.short()),
        };
        write!(f, "{transport}:{}", path.display())?;
        tag.as_ref().map_or(Ok(()), |tag| write!(f, ":{tag}"))
    }
}

#[cfg(test)]
#[path = "reference_tests.rs"]
mod tests;
