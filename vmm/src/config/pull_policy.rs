// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--pull`: when an image by name is pulled from its registry. Pure.

use super::text_form::text_form;
use std::fmt;
use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected always, missing or never")]
pub(crate) struct PullPolicyError;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum PullPolicy {
    /// At every start; what is here already is not fetched again.
    Always,
    /// If the local store does not have it.
    #[default]
    Missing,
    Never,
}

impl FromStr for PullPolicy {
    type Err = PullPolicyError;

    fn from_str(text: &str) -> Result<Self, PullPolicyError> {
        match text {
            "always" => Ok(Self::Always),
            "missing" => Ok(Self::Missing),
            "never" => Ok(Self::Never),
            _ => Err(PullPolicyError),
        }
    }
}

impl fmt::Display for PullPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Always => "always",
            Self::Missing => "missing",
            Self::Never => "never",
        })
    }
}

text_form!(PullPolicy);
