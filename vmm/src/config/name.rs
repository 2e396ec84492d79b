// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--name`, `--id`, volumes: names of directories and files on the host. `--hostname`: the guest's.

use super::text_form::text_form;
use crate::host::random::{RandomError, random_hex, random_id};
use std::fmt;
use std::str::FromStr;

/// Digits of the name of a volume that was given none, as in docker.
const VOLUME_DIGITS: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NameError(&'static str);

/// The name of a microVM and of its run directory: nothing that a file system or a shell could misread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MachineName(String);

/// The name of a volume, and of its file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct VolumeName(String);

/// A host name that the guest's kernel and a resolver accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostName(String);

impl MachineName {
    pub(crate) fn random() -> Result<Self, RandomError> {
        random_id().map(Self)
    }

    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// What no file system and no shell misreads.
fn check_file_name(text: &str) -> Result<(), NameError> {
    let valid_start = text.starts_with(|first: char| first.is_ascii_alphanumeric());
    match text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')) {
        true if valid_start => Ok(()),
        _ => Err(NameError("expected letters, digits, `_`, `.` and `-`, and a letter or digit first")),
    }
}

impl FromStr for MachineName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        check_file_name(text)?;
        if text.len() > 64 { Err(NameError("the maximum is 64 characters")) } else { Ok(Self(text.to_owned())) }
    }
}

impl VolumeName {
    pub(crate) fn random() -> Result<Self, RandomError> {
        random_hex(VOLUME_DIGITS).map(Self)
    }

    /// Whether it is one that [`random`](Self::random) gives.
    #[must_use]
    pub(crate) fn is_random(&self) -> bool {
        self.0.len() == VOLUME_DIGITS && self.0.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    }

    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VolumeName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        check_file_name(text)?;
        if text.len() > 128 { Err(NameError("the maximum is 128 characters")) } else { Ok(Self(text.to_owned())) }
    }
}

impl FromStr for HostName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let label = |label: &str| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
        };
        if !text.split('.').all(label) {
            return Err(NameError("expected letters, digits, `-` and `_` in parts joined by dots"));
        }
        if text.len() > 64 {
            return Err(NameError("the maximum is 64 characters"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for MachineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_form!(MachineName, HostName, VolumeName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_name_rejects_paths_and_options() {
        let long = "x".repeat(65);
        for text in ["", ".", "..", "a/b", "/", "-x", "a b", "a\0b", "na\u{ef}ve", ".hidden", "a\nb", &long] {
            assert!(text.parse::<MachineName>().is_err(), "{text:?}");
        }
        for text in ["web", "web-1", "Web_1.example", "0"] {
            assert_eq!(text.parse::<MachineName>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn random_names_of_volumes_are_known_as_such() {
        let name = VolumeName::random().unwrap();
        assert!(name.is_random());
        assert_eq!(name.as_str().parse(), Ok(name.clone()));
        assert!(!"data".parse::<VolumeName>().unwrap().is_random());
        assert!("x".repeat(128).parse::<VolumeName>().is_ok() && "x".repeat(129).parse::<VolumeName>().is_err());
    }

    #[test]
    fn host_name_accepts_what_a_resolver_does() {
        for text in ["", "no spaces", "-leading", "trailing-", "a..b", ".a", "a.", "a/b", "\u{e9}", &"x".repeat(65)] {
            assert!(text.parse::<HostName>().is_err(), "{text:?}");
        }
        for text in ["web", "web.example.org", "made-up", "under_score"] {
            assert_eq!(text.parse::<HostName>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn random_names_are_valid_and_differ() {
        let (one, other) = (MachineName::random().unwrap(), MachineName::random().unwrap());
        assert_eq!(one.as_str().parse(), Ok(one.clone()));
        assert_ne!(one, other);
        assert_eq!(one.as_str().len(), 12);
    }
}
