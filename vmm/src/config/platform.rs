// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--platform`: which of an image's platforms is used. Pure.

use super::text_form::text_form;
use oci_image::{Platform, PlatformError};
use std::fmt;
use std::str::FromStr;

/// A platform as it was given, which the document keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlatformChoice {
    text: String,
    platform: Platform,
}

impl PlatformChoice {
    #[must_use]
    pub(crate) fn get(&self) -> Platform {
        self.platform.clone()
    }
}

impl FromStr for PlatformChoice {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        Ok(Self { text: text.to_owned(), platform: text.parse()? })
    }
}

impl fmt::Display for PlatformChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

text_form!(PlatformChoice);
