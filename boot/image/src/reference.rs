// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where an image is, as people write it: `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:TAG]`, or
//! the path alone.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// An image in a directory or a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageReference {
    /// A directory with `oci-layout`, `index.json` and `blobs`.
    OciLayout {
        path: PathBuf,
        /// Which image of it.
        tag: Option<String>,
    },
    /// The same in a tar file.
    OciArchive {
        path: PathBuf,
        /// Which image of it.
        tag: Option<String>,
    },
    /// What `docker save` writes.
    DockerArchive {
        path: PathBuf,
        /// Which image of it: a tag, or a name with a tag.
        tag: Option<String>,
    },
}

/// Text that names no image we can read.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    /// Nothing, or a prefix with nothing behind it.
    #[error("image `{0}` names no path; {SUPPORTED}")]
    Empty(String),
    /// A transport of the container tools that is not here yet.
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
    /// Neither a path that exists, nor a transport, nor a name that a registry can have.
    #[error("image `{0}`: no such file or directory; {SUPPORTED}")]
    Name(String),
    /// It begins as a path does, and nothing is there.
    #[error("image `{0}`: no such file or directory")]
    Missing(String),
    #[error("image name holds a NUL byte")]
    Nul,
}

const SUPPORTED: &str = "supported are oci:DIR[:TAG], oci-archive:FILE[:TAG] and docker-archive:FILE[:TAG]";
const FOREIGN: [&str; 6] = ["docker-daemon", "containers-storage", "containerd", "dir", "registry", "oci-registry"];

impl ImageReference {
    /// Reads `text`. A path without a prefix is looked into to tell a layout from the two kinds of archive.
    ///
    /// # Errors
    /// See [`ReferenceError`]. That the path of a prefixed form exists is not checked here.
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
            return Ok(match crate::source::looks_like_docker_archive(&path) {
                true => Self::DockerArchive { path, tag },
                false => Self::OciArchive { path, tag },
            });
        }
        Err(match split {
            Some(("docker", name)) => registry(text, name.trim_start_matches('/')),
            Some((transport, _)) if FOREIGN.contains(&transport) => {
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

    /// Which image of it, if said.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        match self {
            Self::OciLayout { tag, .. } | Self::OciArchive { tag, .. } | Self::DockerArchive { tag, .. } => {
                tag.as_deref()
            }
        }
    }
}

/// The rejection of a `name` in a registry, completed as docker completes it: `alpine` is `docker.io/library/alpine`.
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

/// Splits `PATH[:TAG]` at the first colon, as the container tools do, unless the whole is a path that exists.
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
