// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What makes `coracle-oci` fail, and how an engine gets to see it.

use super::call::Call;
use crate::config::rfc3339;
use crate::host::installed::NotInstalledError;
use crate::host::system_error::chain;
use crate::run::failure::print_error;
use serde::Serialize;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

#[derive(Debug, thiserror::Error)]
pub(super) enum OciError {
    #[error(
        "no OCI runtime to delegate to: neither crun nor runc is in PATH; \"delegate\" in {} names one",
        super::settings::PATH
    )]
    NoDelegate,
    #[error("cannot execute {path}")]
    Delegate { path: PathBuf, source: std::io::Error },
    #[error("{path} state: invalid output")]
    State { path: PathBuf, source: serde_json::Error },
    #[error("container {0} does not exist")]
    NoContainer(String),
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} has more than {} MiB", super::json::MAX_BYTES >> 20)]
    TooLarge { path: PathBuf },
    #[error("{path}")]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{path}: {reason}")]
    Document { path: PathBuf, reason: DocumentError },
    #[error(transparent)]
    NoMachine(DocumentError),
    #[error(transparent)]
    Installed(#[from] NotInstalledError),
    #[error("no container ID given")]
    NoId,
    #[error("exec without --process is not supported")]
    NoProcess,
    // Engines look for these words.
    #[error("exec: \"{0}\": executable file not found in $PATH")]
    NotInPath(String),
    #[error("exec: \"{0}\": no such file or directory")]
    NoCommand(String),
    #[error("exec: \"{0}\": permission denied")]
    NotExecutable(String),
    #[error("{0}")]
    Workload(String),
    #[error("{0}: the workload was not executed within {1} s")]
    Slow(String, u64),
    #[error(transparent)]
    System(#[from] crate::host::system_error::SystemError),
}

/// A document that is not valid, or a container that cannot be a machine.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DocumentError {
    #[error("{0} is missing or not {1}")]
    Field(&'static str, &'static str),
    #[error("{0}: invalid value '{1}': {2}")]
    Value(&'static str, String, String),
    #[error("the host network (--network host) is not supported: a machine has a network of its own")]
    HostNetwork,
    #[error("the host PID namespace (--pid host) is not supported: a machine has processes of its own")]
    HostPid,
    #[error("device {0}: devices of the host are not passed to a machine")]
    Device(String),
    #[error("kernel parameter {0}: supported are {known}", known = crate::config::sysctl::SUPPORTED)]
    Sysctl(String),
    #[error("unknown annotation {0}; expected io.coracle.memory or io.coracle.cpus")]
    Annotation(String),
}

impl DocumentError {
    /// Names the document where it is at fault, and not the user's options.
    pub(super) fn of(self, path: &Path) -> OciError {
        match self {
            Self::Field(..) | Self::Value(..) => OciError::Document { path: path.to_owned(), reason: self },
            _ => OciError::NoMachine(self),
        }
    }
}

/// A line of runc's log in JSON.
#[derive(Serialize)]
struct LogLine<'a> {
    level: &'a str,
    msg: &'a str,
    #[serde(with = "rfc3339")]
    time: SystemTime,
}

impl OciError {
    /// Prints the error, and adds it to the log of `call`, from which containerd takes it.
    pub(super) fn report(&self, call: &Call) {
        let message = chain(self);
        print_error(&message);
        let Some(path) = call.global_value("--log") else { return };
        let is_json = call.global_value("--log-format").is_some_and(|format| format == "json");
        let time = SystemTime::now();
        let line = match is_json {
            true => serde_json::to_string(&LogLine { level: "error", msg: &message, time }).unwrap_or_default(),
            false => format!("level=error msg={message:?}"),
        };
        // The message was printed.
        let _ = OpenOptions::new().append(true).create(true).open(path).and_then(|mut log| writeln!(log, "{line}"));
    }
}
