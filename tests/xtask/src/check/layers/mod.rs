// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Imports point down. Between the packages of the workspace, which Cargo enforces and this step records; between the
//! directories of `vmm/src`, in the order of [`LAYERS`]; and in every package no two directories beside each other import one
//! another, directly or through a third.

mod imports;
mod modules;

use crate::check::manifests::{Manifest, manifests};
use crate::repository::{files, root};
use anyhow::Result;
use modules::Modules;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The directories of `vmm/src`; each imports only what stands after it.
const LAYERS: [&str; 9] = ["cli", "run", "machine", "api", "network", "state", "sandbox", "config", "host"];
const LAYERED: &str = "vmm/src";

/// What each package may depend on, of the packages of the workspace and of those crates that have one user by design.
const PACKAGES: [(&str, &[&str]); 12] = [
    ("vmm", &["kvm", "devices", "boot", "oci-image", "registry", "guest-protocol"]),
    ("kvm", &["devices", "boot", "kvm-ioctls"]),
    ("devices", &[]),
    ("boot", &[]),
    ("oci-image", &[]),
    ("registry", &["oci-image"]),
    ("guest-protocol", &[]),
    ("guest-init", &["guest-protocol"]),
    ("coracle-tests", &[]),
    ("hostile-guest", &["devices"]),
    ("hostile-kernel", &["hostile-guest"]),
    ("xtask", &["coracle-tests", "boot", "guest-protocol"]),
];

pub(super) fn check() -> Result<Vec<String>> {
    let manifests = manifests()?;
    let mut findings = package_findings(&manifests);
    let files = files()?;
    for manifest in &manifests {
        let source = manifest.directory.join("src");
        let own =
            files.iter().filter(|file| file.starts_with(&source) && file.extension().is_some_and(|end| end == "rs"));
        let texts = own.map(|file| {
            let text = fs::read_to_string(root().join(file))?;
            Ok((file.strip_prefix(&source)?.to_owned(), text))
        });
        let modules = Modules::new(texts.collect::<Result<Vec<_>>>()?);
        let imports = Imports::of(&modules);
        let layers: &[&str] = if source == Path::new(LAYERED) { &LAYERS } else { &[] };
        let found = imports.upward(layers).into_iter().chain(imports.circles());
        findings.extend(found.map(|finding| format!("{}/{finding}", source.display())));
    }
    Ok(findings)
}

fn package_findings(manifests: &[Manifest]) -> Vec<String> {
    let mut findings = Vec::new();
    let restricted: BTreeSet<&str> =
        PACKAGES.iter().flat_map(|(name, allowed)| allowed.iter().chain([name])).copied().collect();
    for manifest in manifests {
        let name = manifest.name.as_str();
        let Some((_, allowed)) = PACKAGES.iter().find(|(package, _)| *package == name) else {
            findings.push(format!("{}: no rule says what {name} may depend on", manifest.path().display()));
            continue;
        };
        let wrong = manifest.dependencies.iter().map(|dependency| dependency.package.as_str());
        let wrong =
            wrong.filter(|package| restricted.contains(package) && !allowed.contains(package) && *package != name);
        findings
            .extend(wrong.map(|package| format!("{}: {name} may not depend on {package}", manifest.path().display())));
    }
    findings
}

/// Where one directory first imports another, as `file:line`.
#[derive(Debug, Default)]
struct Imports {
    between: BTreeMap<(PathBuf, PathBuf), String>,
    /// The same without tests, which may use a directory that uses theirs.
    in_the_product: BTreeMap<(PathBuf, PathBuf), String>,
}

impl Imports {
    fn of(modules: &Modules) -> Imports {
        let mut imports = Imports::default();
        for file in &modules.files {
            let from = file.path.parent().unwrap_or(Path::new(""));
            for import in &file.imports {
                let Some(to) = modules.directory_of(&import.path) else { continue };
                let ends = (from.to_owned(), to);
                let place = || format!("{}:{}", file.path.display(), import.line);
                if !file.is_test() && !import.in_tests {
                    imports.in_the_product.entry(ends.clone()).or_insert_with(place);
                }
                imports.between.entry(ends).or_insert_with(place);
            }
        }
        imports
    }

    /// Imports of a directory that stands before the importing one in `layers`, or does not stand there at all.
    fn upward(&self, layers: &[&str]) -> Vec<String> {
        let rank = |path: &Path| {
            let top = path.iter().next()?;
            layers.iter().position(|layer| top == *layer)
        };
        let mut findings = Vec::new();
        for ((from, to), place) in &self.between {
            let (Some(importer), Some(imported)) = (rank(from), rank(to)) else { continue };
            if imported < importer {
                findings.push(format!("{place}: {} may not import {}", layers[importer], layers[imported]));
            }
        }
        let unknown = self
            .between
            .iter()
            .filter(|((from, _), _)| !layers.is_empty() && from != Path::new("") && rank(from).is_none());
        let unknown: BTreeSet<&Path> = unknown.map(|((from, _), _)| from.as_path()).collect();
        findings.extend(unknown.into_iter().map(|path| format!("{}: has no place among the layers", path.display())));
        findings
    }

    /// Directories beside each other that reach one another.
    fn circles(&self) -> Vec<String> {
        // For each pair of siblings, the first import between anything below them.
        let mut edges: BTreeMap<PathBuf, BTreeMap<PathBuf, &str>> = BTreeMap::new();
        for ((from, to), place) in &self.in_the_product {
            let common = from.iter().zip(to.iter()).take_while(|(one, other)| one == other).count();
            if from.iter().count() > common && to.iter().count() > common {
                let sibling = |path: &Path| path.iter().take(common + 1).collect::<PathBuf>();
                edges.entry(sibling(from)).or_default().entry(sibling(to)).or_insert(place);
            }
        }
        let mut findings = Vec::new();
        let mut reported = BTreeSet::new();
        for start in edges.keys() {
            if let Some(circle) = shortest_circle(&edges, start) {
                let members: BTreeSet<&PathBuf> = circle.iter().map(|(directory, _)| directory).collect();
                if reported.insert(members.clone().into_iter().cloned().collect::<Vec<_>>()) {
                    let steps = circle.iter().map(|(to, place)| format!("{place} imports {}", to.display()));
                    findings.push(format!("{}: a circle: {}", start.display(), steps.collect::<Vec<_>>().join("; ")));
                }
            }
        }
        findings
    }
}

type Edges<'a> = BTreeMap<PathBuf, BTreeMap<PathBuf, &'a str>>;

/// The shortest way from `start` to itself: each step's directory and import.
fn shortest_circle(edges: &Edges<'_>, start: &PathBuf) -> Option<Vec<(PathBuf, String)>> {
    let mut seen = BTreeSet::new();
    let mut ways = vec![Vec::new()];
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            let at = way.last().map_or(start, |(directory, _)| directory);
            for (to, place) in edges.get(at).into_iter().flatten() {
                let mut way = way.clone();
                way.push((to.clone(), (*place).to_owned()));
                if to == start {
                    return Some(way);
                }
                if seen.insert(to.clone()) {
                    longer.push(way);
                }
            }
        }
        ways = longer;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{Imports, LAYERS, Modules, PACKAGES, package_findings};
    use crate::check::manifests::Manifest;

    fn imports(files: &[(&str, &str)]) -> Imports {
        Imports::of(&Modules::new(files.iter().map(|(path, text)| ((*path).into(), (*text).to_owned()))))
    }

    #[test]
    fn upward_import_is_found_with_its_line() {
        let good = ("machine/build.rs", "use crate::state::status::Status;\nuse crate::host;");
        let bad = ("state/status.rs", "use crate::config;\nfn f() { crate::machine::build::g() }");
        let more = [("host/mod.rs", ""), ("config/mod.rs", ""), ("lib.rs", "mod host;")];
        let files = [&[good, bad][..], &more].concat();
        assert_eq!(imports(&files).upward(&LAYERS), ["state/status.rs:2: state may not import machine"]);
    }

    #[test]
    fn upward_import_through_a_re_export_is_found() {
        let files = [
            ("api/mod.rs", "pub(crate) use super::machine::Machine;"),
            ("machine/mod.rs", ""),
            ("run/mod.rs", "use crate::api::Machine;"),
        ];
        assert_eq!(imports(&files).upward(&LAYERS), ["api/mod.rs:1: api may not import machine"]);
    }

    #[test]
    fn directory_outside_the_layers_is_found() {
        let files = [("misc/mod.rs", "use crate::host::f;"), ("host/mod.rs", "")];
        assert_eq!(imports(&files).upward(&LAYERS), ["misc: has no place among the layers"]);
    }

    #[test]
    fn circle_of_directories_is_found_once() {
        let files = [
            ("a/x.rs", "use crate::b::y::Y;"),
            ("b/y.rs", "use crate::c::Z;"),
            ("c/mod.rs", "\nuse crate::a::x::X;"),
            ("d/mod.rs", "use crate::a::x::X;"),
        ];
        let expected = "a: a circle: a/x.rs:1 imports b; b/y.rs:1 imports c; c/mod.rs:2 imports a";
        assert_eq!(imports(&files).circles(), [expected]);
    }

    #[test]
    fn tests_do_not_close_a_circle() {
        let files = [
            ("a/x.rs", "use crate::b::Y;"),
            ("b/mod.rs", "mod tests { use crate::a::x::X; }"),
            ("b/y_tests.rs", "use crate::a::x::X;"),
        ];
        assert!(imports(&files).circles().is_empty());
    }

    #[test]
    fn directory_and_its_parent_are_no_circle() {
        let files = [("a/mod.rs", "mod b; pub use b::c::C; fn f() {}"), ("a/b/c.rs", "use super::super::f;")];
        assert!(imports(&files).circles().is_empty());
    }

    #[test]
    fn second_user_of_kvm_ioctls_is_found() {
        let manifest = |name: &str, packages: &[&str]| Manifest::for_test(name, packages);
        let findings = package_findings(&[manifest("kvm", &["kvm-ioctls"]), manifest("vmm", &["kvm", "kvm-ioctls"])]);
        assert_eq!(findings, ["vmm/Cargo.toml: vmm may not depend on kvm-ioctls"]);
        let findings = package_findings(&[manifest("devices", &["boot", "log"]), manifest("new", &[])]);
        assert_eq!(findings.len(), 2, "{findings:?}");
    }

    #[test]
    fn rules_name_each_package_once() {
        let mut names: Vec<_> = PACKAGES.iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), PACKAGES.len());
    }
}
