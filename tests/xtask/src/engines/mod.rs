// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask engines`: test suites of container engines, with their own runtime and with `coracle-oci`.

mod podman_tests;
mod tap;

use anyhow::{Result, bail};
use std::process::ExitCode;

pub(crate) fn run(words: &[String]) -> Result<ExitCode> {
    match words.split_first().map(|(name, rest)| (name.as_str(), rest)) {
        Some(("podman-tests", files)) => podman_tests::run(files),
        _ => bail!("which suite? podman-tests [FILE...]"),
    }
}
