// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the outer Linux gets: the release build, the tests, images and kernels, from the scripts that build them.

use super::options::ForeignKernels;
use crate::repository::{cargo, root};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Stdio};

const DEBIAN_CLOUD: &str = "guest-kernel-config/debian-cloud.sh";
const OUTER: &str = "tests/nested/build.sh";
const EMULATOR: &str = "tests/nested/qemu.sh";

#[derive(Debug)]
pub(super) struct Product {
    /// Directory of `coracle`, `vmlinux`, `coracle-init`, `System.map`.
    pub(super) release: PathBuf,
    /// The binary of the end-to-end tests.
    pub(super) tests: PathBuf,
    /// Directory of `vmlinuz`, `initramfs`, `root.squashfs`.
    pub(super) outer: PathBuf,
    /// Directory of the test images.
    pub(super) images: PathBuf,
    /// The emulator that the outer Linux runs in.
    pub(super) emulator: PathBuf,
    /// Foreign kernels, each a name and its directory; none where nothing in the outer Linux asks for one.
    pub(super) kernels: Vec<(&'static str, PathBuf)>,
}

impl Product {
    /// Finds everything, and builds what is missing, except the release build.
    pub(super) fn find(foreign_kernels: ForeignKernels) -> Result<Product> {
        let release = directory_of(coracle_tests::coracle().to_owned())?;
        for name in ["vmlinux", "coracle-init"] {
            let path = release.join(name);
            ensure!(path.is_file(), "{} does not exist: run `make build` first", path.display());
        }
        let mut kernels = Vec::new();
        if foreign_kernels >= ForeignKernels::Packaged {
            kernels.push(("debian-cloud", built_by(DEBIAN_CLOUD)?));
        }
        if foreign_kernels == ForeignKernels::All {
            let script = "guest-kernel-config/firecracker-options/build.sh";
            kernels.push(("firecracker-options", directory_of(built_by(script)?)?));
        }
        Ok(Product {
            release,
            tests: test_binary()?,
            outer: built_by(OUTER)?,
            images: coracle_tests::images().to_owned(),
            emulator: built_by(EMULATOR)?,
            kernels,
        })
    }
}

/// Builds what is not built from this workspace; first what may be installed as a package.
pub(super) fn outer_parts() -> Result<()> {
    [EMULATOR, DEBIAN_CLOUD, OUTER].into_iter().try_for_each(|script| built_by(script).map(drop))
}

fn directory_of(file: PathBuf) -> Result<PathBuf> {
    Ok(file.parent().with_context(|| format!("{} has no parent directory", file.display()))?.to_owned())
}

/// The path that a build script prints as its last line.
fn built_by(script: &str) -> Result<PathBuf> {
    let mut command = Command::new(root().join(script));
    let output = command.stderr(Stdio::inherit()).output().with_context(|| script.to_owned())?;
    ensure!(output.status.success(), "{script}: {}", output.status);
    let text = String::from_utf8(output.stdout).with_context(|| format!("output of {script}"))?;
    Ok(PathBuf::from(text.lines().last().with_context(|| format!("{script} printed nothing"))?))
}

/// Builds the end-to-end tests and finds their binary.
fn test_binary() -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["test", "--package", "coracle-tests", "--test", "end_to_end", "--no-run", "--message-format=json"]);
    let output = command.stderr(Stdio::inherit()).output().context("cargo")?;
    ensure!(output.status.success(), "cargo test --no-run: {}", output.status);
    let messages = String::from_utf8(output.stdout).context("cargo's messages")?;
    let executable = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_it = message["target"]["name"] == "end_to_end";
        is_it.then(|| message["executable"].as_str().map(PathBuf::from)).flatten()
    };
    messages.lines().find_map(executable).context("cargo built no binary for the end-to-end tests")
}
