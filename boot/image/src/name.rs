// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Names of images as docker takes them: `alpine`, `ghcr.io/x/y:1`, `NAME@sha256:...` (the grammar
//! of the distribution project's `reference` package). Pure.

use crate::digest::Digest;
use std::fmt;

/// Of the complete name, without tag and digest; docker's limit.
const MAX_NAME_LENGTH: usize = 255;
const MAX_TAG_LENGTH: usize = 128;
/// The registry of a name without one, and the host that answers for it.
const DOCKER_HUB: &str = "docker.io";

/// A complete name: `alpine` is `docker.io/library/alpine:latest`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageName {
    registry: String,
    repository: String,
    /// `latest` if neither tag nor digest is given.
    tag: Option<String>,
    digest: Option<String>,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("invalid image name")]
    Malformed,
    #[error("invalid image name: the repository must be lower case")]
    UpperCase,
    #[error("invalid image name: longer than {MAX_NAME_LENGTH} bytes")]
    TooLong,
    #[error("invalid image name: malformed tag")]
    Tag,
    #[error("invalid image name: malformed digest")]
    Digest,
}

impl ImageName {
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(Digest::parse(digest).map_err(|_| NameError::Digest)?.to_string())),
            None => (text, None),
        };
        let last = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (path, tag) = match rest[last..].find(':') {
            Some(colon) => (&rest[..last + colon], Some(&rest[last + colon + 1..])),
            None => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(NameError::Tag);
        }
        let (registry, repository) = match path.split_once('/') {
            Some((first, more)) if is_registry(first) => (first, more.to_owned()),
            _ => (DOCKER_HUB, path.to_owned()),
        };
        let registry = if registry == "index.docker.io" { DOCKER_HUB } else { registry };
        let repository = match registry {
            DOCKER_HUB if !repository.contains('/') => format!("library/{repository}"),
            _ => repository,
        };
        if registry.len() + 1 + repository.len() > MAX_NAME_LENGTH {
            return Err(NameError::TooLong);
        }
        if !is_host(registry) || !repository.split('/').all(|part| is_component(&part.to_ascii_lowercase())) {
            return Err(NameError::Malformed);
        }
        if repository.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(NameError::UpperCase);
        }
        let tag = tag.or_else(|| digest.is_none().then_some("latest")).map(str::to_owned);
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }

    /// Host, with its port if it has one.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// `sha256:...`
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// Registry and repository as docker prints them, without its own registry: `alpine`.
    #[must_use]
    pub fn short_repository(&self) -> String {
        match (self.registry.as_str(), self.repository.strip_prefix("library/")) {
            (DOCKER_HUB, Some(official)) if !official.contains('/') => official.to_owned(),
            (DOCKER_HUB, _) => self.repository.clone(),
            (registry, _) => format!("{registry}/{}", self.repository),
        }
    }

    /// The name as docker prints it: `alpine:latest`.
    #[must_use]
    pub fn short(&self) -> String {
        format!("{}{}", self.short_repository(), self.suffix())
    }

    fn suffix(&self) -> String {
        let tag = self.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
        let digest = self.digest.as_ref().map(|digest| format!("@{digest}")).unwrap_or_default();
        tag + &digest
    }

    /// Whether both are the same repository and tag, or the same digest if they have no tags.
    pub(crate) fn has_tag_of(&self, other: &Self) -> bool {
        let key = |name: &Self| name.tag.clone().or_else(|| name.digest.clone());
        (&self.registry, &self.repository, key(self)) == (&other.registry, &other.repository, key(other))
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.registry, self.repository, self.suffix())
    }
}

/// Whether the first component of a name is a registry.
fn is_registry(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// A host name, an IPv4 address or an IPv6 address in brackets, optionally with a port.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let is_ipv6 = |host: &str| {
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        inner.is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok())
    };
    port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
        && (is_ipv6(host) || host.split('.').all(is_label))
}

/// A component of a repository: lower-case words, joined by `.`, `_`, `__` or dashes.
fn is_component(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    let separators = text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).filter(|part| !part.is_empty());
    is_word(*first)
        && is_word(*last)
        && separators.into_iter().all(|part| matches!(part, "." | "_" | "__") || part.bytes().all(|byte| byte == b'-'))
}

fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= MAX_TAG_LENGTH
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn name_is_completed_as_in_docker() {
        for (text, full, short) in [
            ("alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("alpine:3", "docker.io/library/alpine:3", "alpine:3"),
            ("x/y", "docker.io/x/y:latest", "x/y:latest"),
            ("library/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("index.docker.io/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("ghcr.io/x/y:1.2-a_b", "ghcr.io/x/y:1.2-a_b", "ghcr.io/x/y:1.2-a_b"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            ("localhost:5000/x", "localhost:5000/x:latest", "localhost:5000/x:latest"),
            ("127.0.0.1:80/a__b/c--d", "127.0.0.1:80/a__b/c--d:latest", "127.0.0.1:80/a__b/c--d:latest"),
            ("[::1]:5000/x:1", "[::1]:5000/x:1", "[::1]:5000/x:1"),
            ("HOST/x", "HOST/x:latest", "HOST/x:latest"),
        ] {
            let name = ImageName::parse(text).unwrap();
            assert_eq!((name.to_string().as_str(), name.short().as_str()), (full, short), "{text}");
            assert_eq!(ImageName::parse(&name.short()).unwrap(), name);
        }
        let name = ImageName::parse(&format!("alpine@{DIGEST}")).unwrap();
        assert_eq!((name.tag(), name.digest()), (None, Some(DIGEST)));
        let both = ImageName::parse(&format!("alpine:3@{DIGEST}")).unwrap();
        assert_eq!((both.tag(), both.digest()), (Some("3"), Some(DIGEST)));
    }

    #[test]
    fn malformed_names_are_rejected() {
        use NameError::{Malformed, Tag, UpperCase};
        for (text, error) in [
            ("", Malformed),
            ("a//b", Malformed),
            ("/a", Malformed),
            ("a/", Malformed),
            ("-a", Malformed),
            ("a..b", Malformed),
            ("a___b", Malformed),
            ("../a", Malformed),
            ("a b", Malformed),
            ("a\n", Malformed),
            ("host:port/x", Malformed),
            ("host:0/x", Malformed),
            ("a.b/../c", Malformed),
            ("Alpine", UpperCase),
            ("x/Y", UpperCase),
            ("alpine:", Tag),
            ("alpine:.x", Tag),
            ("alpine:a/b:", Tag),
            ("alpine@sha256:0a", NameError::Digest),
            ("alpine@md5:00", NameError::Digest),
        ] {
            assert_eq!(ImageName::parse(text), Err(error), "{text:?}");
        }
        assert_eq!(ImageName::parse(&"a".repeat(300)), Err(NameError::TooLong));
        assert_eq!(ImageName::parse(&format!("a:{}", "t".repeat(129))), Err(Tag));
    }
}
