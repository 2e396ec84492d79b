// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The runtime that does everything but the machine: crun or runc.

use super::call::Call;
use super::error::OciError;
use super::{OWN, bundle};
use serde::Deserialize;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const NAMES: [&str; 2] = ["crun", "runc"];
/// An engine's PATH may lack them.
const DIRECTORIES: [&str; 5] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin"];

#[derive(Debug)]
pub(super) struct Delegate(PathBuf);

/// `state` of an OCI runtime.
#[derive(Debug, Deserialize)]
pub(super) struct State {
    #[serde(default)]
    pub(super) pid: i32,
    bundle: PathBuf,
}

impl State {
    /// Whether the container is a machine.
    pub(super) fn is_machine(&self) -> bool {
        self.own().join(bundle::REQUEST).exists()
    }

    /// Directory of all run directories, which is one.
    pub(super) fn run_directory(&self) -> PathBuf {
        self.own().join("run")
    }

    fn own(&self) -> PathBuf {
        self.bundle.join(OWN)
    }
}

impl Delegate {
    pub(super) fn find(named: Option<&Path>) -> Result<Self, OciError> {
        if let Some(path) = named {
            return Ok(Self(path.to_owned()));
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let directories: Vec<_> = std::env::split_paths(&path).chain(DIRECTORIES.map(PathBuf::from)).collect();
        let found = NAMES.iter().flat_map(|name| directories.iter().map(move |directory| directory.join(name)));
        let mut found = found.filter(|path| path.is_absolute() && path.is_file());
        found.next().map(Self).ok_or(OciError::NoDelegate)
    }

    /// Executes it in this process. Returns only if that fails.
    pub(super) fn become_it(&self, words: &[OsString]) -> OciError {
        self.failure(Command::new(&self.0).args(words).exec())
    }

    /// Runs it with the streams of this process; returns its exit status.
    pub(super) fn run(&self, words: &[OsString]) -> Result<u8, OciError> {
        let status = Command::new(&self.0).args(words).status().map_err(|error| self.failure(error))?;
        let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
        Ok(u8::try_from(code).unwrap_or(u8::MAX))
    }

    /// Asks for the state of the container `id`.
    pub(super) fn state(&self, call: &Call, id: &OsStr) -> Result<State, OciError> {
        let mut command = Command::new(&self.0);
        // Not its log: engines take errors from there.
        for name in ["--root", "--cgroup-manager", "--rootless"] {
            command.args(call.global_value(name).into_iter().flat_map(|value| [OsStr::new(name), value]));
        }
        command.args(call.global().iter().filter(|word| *word == "--systemd-cgroup"));
        let output = command.arg("state").arg(id).stdin(Stdio::null()).output().map_err(|error| self.failure(error))?;
        if !output.status.success() {
            return Err(OciError::NoContainer(id.to_string_lossy().into_owned()));
        }
        serde_json::from_slice(&output.stdout).map_err(|source| OciError::State { path: self.0.clone(), source })
    }

    fn failure(&self, source: std::io::Error) -> OciError {
        OciError::Delegate { path: self.0.clone(), source }
    }
}
