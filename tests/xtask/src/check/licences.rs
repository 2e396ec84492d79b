// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Every dependency may be used under a licence that suits ours. Read from cargo's own metadata, so nothing more need be
//! installed; where cargo-deny is at hand, it has a look as well.

use crate::repository::{cargo, root};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Licences that suit ours. An expression suits if one side of each `OR` does, and both of each `AND`.
const ACCEPTED: [&str; 12] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Packages whose licence does not suit.
pub(crate) fn check() -> Result<Vec<String>> {
    let output = cargo().args(["metadata", "--format-version", "1", "--locked"]).output().context("cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let mut findings = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let licence = package["license"].as_str().unwrap_or_default();
        if !suits(licence) {
            findings.push(format!("{} {}: licence `{licence}`", package["name"], package["version"]));
        }
    }
    if root().join("deny.toml").exists() && cargo().args(["deny", "--version"]).output()?.status.success() {
        let status = cargo().args(["deny", "check", "licenses"]).status().context("cargo deny")?;
        findings.extend((!status.success()).then(|| format!("cargo deny: {status}")));
    }
    Ok(findings)
}

fn suits(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ").replace(['(', ')'], " ");
    // `A AND B OR C` without its parentheses is read as `A AND (B OR C)`: stricter or equal for what is accepted here.
    expression.split(" AND ").all(|part| part.split(" OR ").any(|licence| ACCEPTED.contains(&licence.trim())))
}

#[cfg(test)]
mod tests {
    use super::suits;

    #[test]
    fn one_side_of_or_and_both_of_and_must_suit() {
        assert!(suits("MIT OR GPL-3.0"));
        assert!(suits("MIT/Apache-2.0"));
        assert!(suits("(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(!suits("MIT AND GPL-3.0"));
        assert!(!suits("GPL-3.0"));
        assert!(!suits(""));
    }
}
