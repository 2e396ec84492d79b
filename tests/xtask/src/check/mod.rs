// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask check`: what holds for every commit. Each step has a file here.

mod cargo_steps;
mod dependencies;
mod language;
mod layers;
mod licences;
mod manifests;
mod paths;
mod rust_source;
mod sizes;
mod spdx;
mod versions;

use anyhow::{Result, bail};
use std::process::ExitCode;

/// A step examines the sources and returns its findings, one line each.
type Step = (&'static str, fn() -> Result<Vec<String>>);

/// The fast ones first.
const STEPS: [Step; 12] = [
    ("format", cargo_steps::format),
    ("sizes", sizes::check),
    ("layers", layers::check),
    ("readmes", paths::readmes),
    ("paths", paths::sources),
    ("language", language::check),
    ("spdx", spdx::check),
    ("dependencies", dependencies::check),
    ("versions", versions::check),
    ("licences", licences::check),
    ("lints", cargo_steps::lints),
    ("tests", cargo_steps::tests),
];

/// Runs all steps, or those in `wanted`, even after a finding.
pub(crate) fn run(wanted: &[String]) -> Result<ExitCode> {
    if let Some(unknown) = wanted.iter().find(|name| STEPS.iter().all(|(step, _)| step != name)) {
        let names: Vec<&str> = STEPS.iter().map(|(name, _)| *name).collect();
        bail!("unknown step `{unknown}`; the steps are: {}", names.join(", "));
    }
    let mut failed = Vec::new();
    for (name, step) in STEPS.iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|one| one == name)) {
        println!("== {name}");
        let findings = step()?;
        for finding in &findings {
            println!("   {finding}");
        }
        if !findings.is_empty() {
            failed.push(*name);
        }
    }
    if failed.is_empty() {
        println!("== no findings");
        return Ok(ExitCode::SUCCESS);
    }
    println!("== findings in: {}", failed.join(", "));
    Ok(ExitCode::FAILURE)
}
