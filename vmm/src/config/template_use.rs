// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--template`: whether a machine starts from a template. Pure.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TemplateUse {
    /// If there is one; otherwise one is made once the workload runs.
    Auto,
    #[default]
    Never,
    /// Or the run fails. It is made first if it is missing.
    Require,
}
