// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--pull`: when an image by name is pulled from its registry. Pure.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PullPolicy {
    /// At every start; what is here already is not fetched again.
    Always,
    /// If the local store does not have it.
    #[default]
    Missing,
    Never,
}
