// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The steps that cargo runs.

use crate::repository::cargo;
use anyhow::{Context, Result};

pub(crate) fn format() -> Result<Vec<String>> {
    succeed(&["fmt", "--all", "--check"])
}

/// Clippy finds nothing. PID 1 is linted in the profile that it is built with, because it has no standard library to unwind
/// with.
pub(crate) fn lints() -> Result<Vec<String>> {
    let steps: [&[&str]; 3] = [
        &["--workspace", "--exclude", "guest-init", "--all-targets"],
        &["--package", "guest-init", "--lib", "--tests"],
        &["--package", "guest-init", "--bin", "coracle-init", "--profile", "init"],
    ];
    let mut findings = Vec::new();
    for step in steps {
        findings.extend(succeed(&[&["clippy", "--quiet"], step, &["--", "-D", "warnings"]].concat())?);
    }
    Ok(findings)
}

/// The tests beside the code pass. The end-to-end tests need a build, and belong to `cargo xtask test`.
pub(crate) fn tests() -> Result<Vec<String>> {
    succeed(&["test", "--quiet", "--workspace", "--exclude", "coracle-tests"])
}

fn succeed(arguments: &[&str]) -> Result<Vec<String>> {
    let status = cargo().args(arguments).status().context("cargo")?;
    Ok(if status.success() { Vec::new() } else { vec![format!("cargo {}: {status}", arguments.join(" "))] })
}
