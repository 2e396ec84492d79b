// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The lock file holds one version of each crate that `deny.toml` marks with `deny-multiple-versions`, and every package in it
//! comes from crates.io or the workspace.

use crate::repository::root;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs;

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

pub(super) fn check() -> Result<Vec<String>> {
    let lock = fs::read_to_string(root().join("Cargo.lock")).context("Cargo.lock")?;
    let deny = fs::read_to_string(root().join("deny.toml")).context("deny.toml")?;
    Ok(findings(&lock, &deny))
}

fn findings(lock: &str, deny: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let value = |key| package.lines().find_map(|line| line.strip_prefix(key)).map(|rest| rest.trim_matches('"'));
        let (Some(name), Some(version)) = (value("name = "), value("version = ")) else { continue };
        versions.entry(name).or_default().push(version);
        if let Some(source) = value("source = ").filter(|source| *source != CRATES_IO) {
            findings.push(format!("{name} {version}: from {source}"));
        }
    }
    for name in single_version(deny) {
        if let Some(found) = versions.get(name).filter(|found| found.len() > 1) {
            findings.push(format!("{name}: {}", found.join(", ")));
        }
    }
    findings
}

/// Crates of which there may be one version.
fn single_version(deny: &str) -> impl Iterator<Item = &str> {
    let lines = deny.lines().filter(|line| line.contains("deny-multiple-versions = true"));
    lines.filter_map(|line| line.split_once("crate = \"")?.1.split('"').next())
}

#[cfg(test)]
mod tests {
    use super::findings;

    #[test]
    fn second_version_and_foreign_source_are_found() {
        let lock = "[[package]]\nname = \"vm-memory\"\nversion = \"0.17.0\"\n[[package]]\nname = \"vm-memory\"\n\
                    version = \"0.18.0\"\n[[package]]\nname = \"syn\"\nversion = \"1.0.0\"\n[[package]]\nname = \"syn\"\n\
                    version = \"2.0.0\"\nsource = \"registry+https://github.com/rust-lang/crates.io-index\"\n\
                    [[package]]\nname = \"kvm-ioctls\"\nversion = \"0.25.0\"\nsource = \"git+https://example.org/\"\n";
        let deny = "deny = [\n    { crate = \"vm-memory\", deny-multiple-versions = true },\n    \
                    { crate = \"kvm-ioctls\", deny-multiple-versions = true },\n    { crate = \"syn\" },\n]";
        let expected = ["kvm-ioctls 0.25.0: from git+https://example.org/", "vm-memory: 0.17.0, 0.18.0"];
        assert_eq!(findings(lock, deny), expected);
    }
}
