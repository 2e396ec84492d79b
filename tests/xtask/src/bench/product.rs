// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is measured: a build of coracle with the test images.

use anyhow::{Context, Result, ensure};
use coracle_tests::{Host, Kvm};
use serde_json::Value;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

pub(crate) struct Product {
    binary: PathBuf,
    /// Kernel and PID 1, if there are none beside the binary.
    options: Vec<OsString>,
    images: &'static Path,
    /// The image cache that warm runs share.
    cache: TempDir,
}

/// A started run. Dropping it kills the process.
pub(crate) struct Run {
    pub(crate) child: Child,
    directory: TempDir,
}

impl Product {
    /// The release build, found as the tests find it.
    pub(crate) fn find() -> Result<Product> {
        Product::of(coracle_tests::coracle().to_owned(), Vec::new())
    }

    /// Another build. It runs with the kernel and the PID 1 beside it, or with those of the release build.
    pub(crate) fn other(binary: &Path) -> Result<Product> {
        let binary = fs::canonicalize(binary).with_context(|| binary.display().to_string())?;
        let mut options = Vec::new();
        for (option, name) in [("--kernel", "vmlinux"), ("--init-binary", "coracle-init")] {
            if !binary.with_file_name(name).exists() {
                options.extend([option.into(), coracle_tests::coracle().with_file_name(name).into()]);
            }
        }
        Product::of(binary, options)
    }

    fn of(binary: PathBuf, options: Vec<OsString>) -> Result<Product> {
        Ok(Product { binary, options, images: coracle_tests::images(), cache: tempfile::tempdir()? })
    }

    pub(crate) fn binary(&self) -> &Path {
        &self.binary
    }

    /// The image cache that warm runs share.
    pub(crate) fn cache(&self) -> &Path {
        self.cache.path()
    }

    /// The OCI layout of a test image.
    pub(crate) fn image(&self, name: &str) -> PathBuf {
        self.images.join(name)
    }

    /// Whether this host's KVM emulates guest kernel mode.
    pub(crate) fn emulated(&self) -> bool {
        Host::detect().kvm == Kvm::Software
    }

    /// Starts `coracle run` with the shared image cache.
    pub(crate) fn start(&self, options: &[&str], image: &str, command: &[&str]) -> Result<Run> {
        self.start_with_cache(self.cache.path(), options, image, command)
    }

    /// The same with another image cache.
    pub(crate) fn start_with_cache(&self, cache: &Path, options: &[&str], image: &str, words: &[&str]) -> Result<Run> {
        let directory = tempfile::tempdir()?;
        let mut command = self.run_command(cache, directory.path());
        command
            .args(["--network", "none"])
            .args(options)
            .arg(format!("oci:{}", self.image(image).display()))
            .args(words);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let child = command.spawn().with_context(|| self.binary.display().to_string())?;
        Ok(Run { child, directory })
    }

    /// `coracle run`, which writes everything below `directory`.
    pub(crate) fn run_command(&self, cache: &Path, directory: &Path) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .arg("run")
            .arg("--run-dir")
            .arg(directory.join("run"))
            .arg("--result")
            .arg(directory.join("result.json"));
        command.args(&self.options);
        command.env("XDG_CACHE_HOME", cache).env("TMPDIR", directory);
        command
    }
}

impl Run {
    /// Waits for a successful end and returns the result document.
    pub(crate) fn finish(mut self) -> Result<Value> {
        let status = self.child.wait()?;
        ensure!(status.success(), "the run ended with {status}");
        let bytes = fs::read(self.directory.path().join("result.json")).context("result document")?;
        serde_json::from_slice(&bytes).context("result document")
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Both fail without harm if the process was waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
