// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The workspace's manifests, as cargo reads them.

use crate::repository::{cargo, root};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// One package of the workspace.
#[derive(Debug)]
pub(super) struct Manifest {
    pub(super) name: String,
    /// Relative to the root of the repository.
    pub(super) directory: PathBuf,
    pub(super) dependencies: Vec<Dependency>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dependency {
    pub(super) package: String,
    /// As the code names it.
    pub(super) identifier: String,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Development,
    Build,
}

impl Manifest {
    pub(super) fn path(&self) -> PathBuf {
        self.directory.join("Cargo.toml")
    }

    /// In a directory of its own name, with these dependencies.
    #[cfg(test)]
    pub(super) fn for_test(name: &str, packages: &[&str]) -> Manifest {
        let dependency = |package: &&str| Dependency {
            package: (*package).to_owned(),
            identifier: package.replace('-', "_"),
            kind: Kind::Normal,
        };
        let dependencies = packages.iter().map(dependency).collect();
        Manifest { name: name.to_owned(), directory: name.into(), dependencies }
    }
}

pub(super) fn manifests() -> Result<Vec<Manifest>> {
    metadata(&["--no-deps"])?["packages"].as_array().context("cargo metadata: no packages")?.iter().map(read).collect()
}

/// What `cargo metadata` prints.
pub(super) fn metadata(arguments: &[&str]) -> Result<Value> {
    let mut command = cargo();
    command.args(["metadata", "--format-version", "1", "--locked"]).args(arguments);
    let output = command.output().context("cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    serde_json::from_slice(&output.stdout).context("cargo metadata")
}

fn read(package: &Value) -> Result<Manifest> {
    let text = |value: &Value| value.as_str().map(str::to_owned).context("cargo metadata: no text");
    let path = text(&package["manifest_path"])?;
    let directory = Path::new(&path).parent().and_then(|path| path.strip_prefix(root()).ok());
    let mut dependencies = Vec::new();
    for dependency in package["dependencies"].as_array().into_iter().flatten() {
        let name = text(&dependency["name"])?;
        let identifier = dependency["rename"].as_str().unwrap_or(&name).replace('-', "_");
        let kind = match dependency["kind"].as_str() {
            Some("dev") => Kind::Development,
            Some("build") => Kind::Build,
            _ => Kind::Normal,
        };
        dependencies.push(Dependency { package: name, identifier, kind });
    }
    let directory = directory.with_context(|| format!("{path} is outside the repository"))?.to_owned();
    Ok(Manifest { name: text(&package["name"])?, directory, dependencies })
}
