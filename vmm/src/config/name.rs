// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Names that become names of folders (`--name`, `--id`) or of the guest (`--hostname`).

use super::text_form::text_form;
use crate::host::random::{RandomError, random_id};
use std::fmt;
use std::str::FromStr;

/// A name that could be misread by a file system, a shell or a resolver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NameError(&'static str);

/// Name of a microVM: its folder in the run directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MachineName(String);

/// Name of the guest, as its kernel takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostName(String);

impl MachineName {
    /// A name that nothing else has: 12 hexadecimal digits.
    ///
    /// # Errors
    /// The kernel's random number generator failed.
    pub(crate) fn random() -> Result<Self, RandomError> {
        random_id().map(Self)
    }

    /// The name as text.
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for MachineName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let begins_well = text.starts_with(|first: char| first.is_ascii_alphanumeric());
        let continues_well = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
        if !begins_well || !continues_well {
            return Err(NameError("a name has letters, digits, `_`, `.` and `-`, and begins with a letter or digit"));
        }
        if text.len() > 64 {
            return Err(NameError("a name has at most 64 characters"));
        }
        Ok(Self(text.to_owned()))
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
            return Err(NameError("a host name has letters, digits, `-` and `_` in parts joined by dots"));
        }
        if text.len() > 64 {
            return Err(NameError("a host name has at most 64 characters"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for MachineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_form!(MachineName, HostName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_paths_or_options_are_refused() {
        let long = "x".repeat(65);
        for text in ["", ".", "..", "a/b", "/", "-x", "a b", "a\0b", "na\u{ef}ve", ".hidden", "a\nb", &long] {
            assert!(text.parse::<MachineName>().is_err(), "{text:?}");
        }
        for text in ["web", "web-1", "Web_1.example", "0"] {
            assert_eq!(text.parse::<MachineName>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn host_names_are_what_a_resolver_takes() {
        for text in ["", "no spaces", "-leading", "trailing-", "a..b", ".a", "a.", "a/b", "\u{e9}", &"x".repeat(65)] {
            assert!(text.parse::<HostName>().is_err(), "{text:?}");
        }
        for text in ["web", "web.example.org", "made-up", "under_score"] {
            assert_eq!(text.parse::<HostName>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn random_names_are_names_and_differ() {
        let (one, other) = (MachineName::random().unwrap(), MachineName::random().unwrap());
        assert_eq!(one.as_str().parse(), Ok(one.clone()));
        assert_ne!(one, other);
        assert_eq!(one.as_str().len(), 12);
    }
}
