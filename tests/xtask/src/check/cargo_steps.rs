// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The steps that cargo does itself.

use crate::repository::cargo;
use anyhow::{Context, Result};

/// `rustfmt` has nothing to change.
pub(crate) fn format() -> Result<Vec<String>> {
    succeed(&["fmt", "--all", "--check"])
}

/// Clippy has nothing to say.
pub(crate) fn lints() -> Result<Vec<String>> {
    succeed(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"])
}

/// The tests beside the code pass. The end-to-end tests need a built product: they belong to `cargo xtask test`.
pub(crate) fn tests() -> Result<Vec<String>> {
    succeed(&["test", "--quiet", "--workspace", "--exclude", "coracle-tests"])
}

fn succeed(arguments: &[&str]) -> Result<Vec<String>> {
    let status = cargo().args(arguments).status().context("cargo")?;
    Ok(if status.success() { Vec::new() } else { vec![format!("cargo {}: {status}", arguments.join(" "))] })
}
