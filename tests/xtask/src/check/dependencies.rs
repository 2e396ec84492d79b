// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Every dependency in a manifest is named in its package's sources, and every one that the workspace lists has a user. Where
//! cargo-machete is installed, it is run as well.

use super::manifests::{Dependency, Kind, Manifest, manifests};
use super::rust_source::RustSource;
use crate::repository::{cargo, files, root};
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

pub(super) fn check() -> Result<Vec<String>> {
    let manifests = manifests()?;
    let files = files()?;
    let mut findings = Vec::new();
    for manifest in &manifests {
        let sources = sources(manifest, &manifests, &files)?;
        findings.extend(unused(&manifest.path(), &manifest.dependencies, &sources));
    }
    let workspace = fs::read_to_string(root().join("Cargo.toml")).context("Cargo.toml")?;
    let used: BTreeSet<&str> = manifests
        .iter()
        .flat_map(|manifest| &manifest.dependencies)
        .map(|dependency| dependency.package.as_str())
        .collect();
    findings.extend(
        listed(&workspace)
            .filter(|name| !used.contains(name))
            .map(|name| format!("Cargo.toml: no package uses {name}")),
    );
    if cargo().args(["machete", "--version"]).output()?.status.success() {
        let status = cargo().arg("machete").status().context("cargo machete")?;
        findings.extend((!status.success()).then(|| format!("cargo machete: {status}")));
    }
    Ok(findings)
}

/// What may be names of crates in one source file.
struct Source {
    path: PathBuf,
    identifiers: BTreeSet<String>,
}

/// The sources of a package, without those of packages in directories below its own.
fn sources(manifest: &Manifest, all: &[Manifest], files: &[PathBuf]) -> Result<Vec<Source>> {
    let is_own = |file: &&PathBuf| {
        let owner = all.iter().filter(|package| file.starts_with(&package.directory));
        owner.max_by_key(|package| package.directory.iter().count()).is_some_and(|owner| owner.name == manifest.name)
            && file.extension().is_some_and(|extension| extension == "rs")
    };
    let mut sources = Vec::new();
    for file in files.iter().filter(is_own) {
        let text = fs::read_to_string(root().join(file))?;
        let identifiers = crates_named(&text);
        sources.push(Source { path: file.strip_prefix(&manifest.directory)?.to_owned(), identifiers });
    }
    Ok(sources)
}

/// Identifiers at the start of a path, or after `use`.
fn crates_named(text: &str) -> BTreeSet<String> {
    let tokens = RustSource::parse(text).tokens;
    let word = |index: usize| tokens.get(index).map_or("", |token| token.text);
    let before = |index: usize| index.checked_sub(1).map_or("", word);
    let starts = |index: &usize| before(*index) == "use" || word(index + 1) == "::" && before(*index) != "::";
    (0..tokens.len()).filter(starts).map(|index| word(index).to_owned()).collect()
}

fn unused(manifest: &Path, dependencies: &[Dependency], sources: &[Source]) -> Vec<String> {
    let is_used = |dependency: &&Dependency| {
        let may_use = |source: &&Source| (source.path == Path::new("build.rs")) == (dependency.kind == Kind::Build);
        sources.iter().filter(may_use).any(|source| source.identifiers.contains(&dependency.identifier))
    };
    let unused = dependencies.iter().filter(|dependency| !is_used(dependency));
    unused.map(|dependency| format!("{}: {} is not used", manifest.display(), dependency.package)).collect()
}

fn listed(manifest: &str) -> impl Iterator<Item = &str> {
    let lines = manifest.lines().skip_while(|line| *line != "[workspace.dependencies]").skip(1);
    let lines = lines.take_while(|line| !line.starts_with('['));
    lines.filter(|line| !line.starts_with('#')).filter_map(|line| Some(line.split_once('=')?.0.trim()))
}

#[cfg(test)]
mod tests {
    use super::{Kind, Manifest, Source, crates_named, listed, unused};
    use std::path::Path;

    #[test]
    fn dependency_that_no_source_names_is_found() {
        let source = |path: &str, text: &str| Source { path: path.into(), identifiers: crates_named(text) };
        let text = "use serde_json as json;\nfn f(log: Log) { log.g(crate::log::h) } // log::i";
        let sources = [source("src/lib.rs", text), source("build.rs", "cc::Build::new()")];
        let mut dependencies = Manifest::for_test("a", &["serde-json", "cc", "log", "cc"]).dependencies;
        dependencies[3].kind = Kind::Build;
        let findings = unused(Path::new("a/Cargo.toml"), &dependencies, &sources);
        assert_eq!(findings, ["a/Cargo.toml: cc is not used", "a/Cargo.toml: log is not used"]);
    }

    #[test]
    fn workspace_dependencies_are_listed() {
        let manifest = "[workspace.package]\nversion = \"1\"\n[workspace.dependencies]\n# Ours.\nboot = { path = \"boot\" }\n\n\
                        log = \"1\"\n[profile.release]\nlto = true\n";
        assert_eq!(listed(manifest).collect::<Vec<_>>(), ["boot", "log"]);
    }
}
