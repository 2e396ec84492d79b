// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--result FILE|fd:N`, `--events fd:N|FILE`.

use super::text_form::text_form;
use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a document goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// A result replaces the file atomically, events are appended.
    File(PathBuf),
    /// Inherited from the parent process.
    Descriptor(i32),
}

impl FromStr for Destination {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let number = text.strip_prefix("fd:").and_then(|number| number.parse().ok());
        Ok(number.map_or_else(|| Self::File(text.into()), Self::Descriptor))
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Descriptor(number) => write!(f, "fd:{number}"),
        }
    }
}

text_form!(Destination);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_str_reads_fd_and_a_number_as_a_descriptor() {
        assert_eq!("fd:9".parse(), Ok(Destination::Descriptor(9)));
        for text in ["result.json", "fd", "fd:", "fd:x", "./fd:9"] {
            assert_eq!(text.parse(), Ok(Destination::File(text.into())), "{text}");
        }
    }
}
