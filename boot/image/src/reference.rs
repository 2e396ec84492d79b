// SPDX-License-Identifier: Apache-2.0 OR MIT
//! References to local images: `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`,
//! `docker-archive:FILE[:TAG]`, or a path alone.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// An image in a directory or a file.
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
}

#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    #[error("image `{0}`: no path given; {SUPPORTED}")]
    Empty(String),
    /// A transport of other container tools.
    #[error("image `{0}`: `{1}:` is not supported yet; {SUPPORTED}")]
    Transport(String, String),
    /// A name in a registry.
    #[error(
        "{text}: not a local image: pulling from registries is not supported; \"skopeo copy docker://{source_name} oci:{layout}\" makes a layout that \"coracle run oci:{layout}\" runs"
    )]
    Registry {
        /// The reference as given.
        text: String,
        /// The complete name: registry, repository, tag or digest.
        source_name: String,
        /// Directory and tag for a local copy.
        layout: String,
    },
    /// Neither an existing path, nor a transport, nor a valid name in a registry.
    #[error("image `{0}`: no such file or directory; {SUPPORTED}")]
    Name(String),
    /// A path that does not exist.
    #[error("image `{0}`: no such file or directory")]
    Missing(String),
    #[error("image name contains a NUL byte")]
    Nul,
}

const SUPPORTED: &str = "supported are oci:DIR[:TAG], oci-archive:FILE[:TAG] and docker-archive:FILE[:TAG]";
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
        Err(match split {
            Some(("docker", name)) => registry(text, name.trim_start_matches('/')),
            Some((transport, _)) if OTHER_TRANSPORTS.contains(&transport) => {
                ReferenceError::Transport(text.into(), transport.into())
            }
            _ if text.starts_with(['/', '.']) => ReferenceError::Missing(text.into()),
            _ => registry(text, text),
        })
    }

    /// The directory or file.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::OciLayout { path, .. } | Self::OciArchive { path, .. } | Self::DockerArchive { path, .. } => path,
        }
    }

    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        match self {
            Self::OciLayout { tag, .. } | Self::OciArchive { tag, .. } | Self::DockerArchive { tag, .. } => {
                tag.as_deref()
            }
        }
    }
}

/// Returns the error for a `name` in a registry, which is completed as in docker: `alpine` is
/// `docker.io/library/alpine`.
fn registry(text: &str, name: &str) -> ReferenceError {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    let first = |c: char| c.is_ascii_alphanumeric();
    if !name.split('/').all(|part| part.starts_with(first) && part.chars().all(allowed)) {
        return ReferenceError::Name(text.into());
    }
    let source_name = match name.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
        None => format!("docker.io/library/{name}"),
    };
    let last = name.rsplit('/').next().unwrap_or(name);
    let layout = last.split('@').next().unwrap_or(last).to_owned();
    ReferenceError::Registry { text: text.into(), source_name, layout }
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
        let transport = match self {
            Self::OciLayout { .. } => "oci",
            Self::OciArchive { .. } => "oci-archive",
            Self::DockerArchive { .. } => "docker-archive",
        };
        write!(f, "{transport}:{}", self.path().display())?;
        self.tag().map_or(Ok(()), |tag| write!(f, ":{tag}"))
    }
}

#[cfg(test)]
#[path = "reference_tests.rs"]
mod tests;
