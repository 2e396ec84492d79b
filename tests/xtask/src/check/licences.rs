// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Every dependency may be used under a licence that `deny.toml` allows. Read from cargo's own metadata, so that nothing more
//! need be installed; where cargo-deny is, it checks all of `deny.toml`.

use super::manifests::metadata;
use crate::repository::{cargo, root};
use anyhow::{Context, Result};
use std::fs;

/// Packages whose licence is not allowed.
pub(super) fn check() -> Result<Vec<String>> {
    let deny = fs::read_to_string(root().join("deny.toml")).context("deny.toml")?;
    let allowed = allowed(&deny);
    let mut findings = Vec::new();
    for package in metadata(&[])?["packages"].as_array().into_iter().flatten() {
        let licence = package["license"].as_str().unwrap_or_default();
        if !suits(licence, &allowed) {
            findings.push(format!("{} {}: licence `{licence}`", package["name"], package["version"]));
        }
    }
    if cargo().args(["deny", "--version"]).output()?.status.success() {
        let status = cargo().args(["deny", "check", "licenses", "bans", "sources"]).status().context("cargo deny")?;
        findings.extend((!status.success()).then(|| format!("cargo deny: {status}")));
    }
    Ok(findings)
}

/// The list `allow` of the section `[licenses]`.
fn allowed(deny: &str) -> Vec<&str> {
    let lines = deny.lines().skip_while(|line| *line != "[licenses]");
    let lines = lines.skip_while(|line| *line != "allow = [").skip(1).take_while(|line| *line != "]");
    lines.map(|line| line.trim().trim_end_matches(',').trim_matches('"')).collect()
}

/// An expression suits if one side of each `OR` does, and both of each `AND`.
fn suits(expression: &str, allowed: &[&str]) -> bool {
    let expression = expression.replace('/', " OR ").replace(['(', ')'], " ");
    // `A AND B OR C` without its parentheses is read as `A AND (B OR C)`: stricter or equal for what is allowed here.
    expression.split(" AND ").all(|part| part.split(" OR ").any(|licence| allowed.contains(&licence.trim())))
}

#[cfg(test)]
mod tests {
    use super::{allowed, suits};

    #[test]
    fn one_side_of_or_and_both_of_and_must_suit() {
        let suits = |expression| suits(expression, &["MIT", "Apache-2.0", "Unicode-3.0"]);
        assert!(suits("MIT OR GPL-3.0"));
        assert!(suits("MIT/Apache-2.0"));
        assert!(suits("(MIT OR Apache-2.0) AND Unicode-3.0"));
        assert!(!suits("MIT AND GPL-3.0"));
        assert!(!suits("GPL-3.0"));
        assert!(!suits(""));
    }

    #[test]
    fn allowed_licences_are_read_from_deny_toml() {
        let deny = "[bans]\nallow = [\n]\n[licenses]\n# Ours.\nallow = [\n    \"MIT\",\n    \"ISC\",\n]\nx = [\n]\n";
        assert_eq!(allowed(deny), ["MIT", "ISC"]);
    }
}
