// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `coracle-oci`, or `coracle oci`: an OCI runtime for container engines. It changes documents so that the process of a container is
//! a machine, and leaves everything else (namespaces, control groups, hooks, console socket, life cycle) to another runtime, the
//! delegate. See `vmm/docs/engines.md`.
//!
//! | call | what is changed |
//! |---|---|
//! | `create`, `run` | `config.json` of the bundle, for as long as the delegate reads it (`bundle.rs`) |
//! | `start` | nothing; it returns once the machine's workload is executed (`start.rs`) |
//! | `exec` | the document of `--process` (`process.rs`) |
//! | others | nothing |

mod bundle;
mod call;
mod command;
mod delegate;
mod error;
mod json;
mod monitor;
mod process;
mod seccomp;
mod settings;
mod start;

use crate::host::atomic_write::atomic_write;
use crate::host::directories::IN_CONTAINER;
use bundle::Bundle;
use call::Call;
use clap::Args;
use delegate::Delegate;
use error::OciError;
use serde_json::Value;
use settings::Settings;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

pub(super) use monitor::{MonitorArguments, monitor};

/// The name of the binary with which it is this runtime.
pub(super) const PROGRAM: &str = "coracle-oci";
/// Directory of a bundle that the container has as [`IN_CONTAINER`].
const OWN: &str = "coracle";
/// The machine in the run directory of a container.
const MACHINE: &str = "main";
/// An OCI runtime's status of a failure.
const STATUS_OCI_FAILED: u8 = 1;

/// Be an OCI runtime for podman, Docker and containerd; also by the name coracle-oci
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(super) struct OciArguments {
    /// As of runc or crun, to which everything is passed on
    #[arg(value_name = "WORD", trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<OsString>,
}

/// Returns the exit status.
pub(super) fn oci(arguments: OciArguments) -> u8 {
    oci_words(arguments.words)
}

/// The same for the words of `coracle-oci`.
pub(super) fn oci_words(words: Vec<OsString>) -> u8 {
    let call = Call::parse(words);
    match carry_out(&call) {
        Ok(status) => status,
        Err(error) => {
            error.report(&call);
            STATUS_OCI_FAILED
        }
    }
}

fn carry_out(call: &Call) -> Result<u8, OciError> {
    let settings = Settings::read(Path::new(settings::PATH))?;
    let delegate = Delegate::find(settings.delegate.as_deref())?;
    match call.verb() {
        Some("create" | "run") => create(call, &settings, &delegate),
        Some("start") => start::start(call, &delegate),
        Some("exec") => exec(call, &delegate),
        _ => Err(delegate.become_it(&call.words)),
    }
}

fn create(call: &Call, settings: &Settings, delegate: &Delegate) -> Result<u8, OciError> {
    let path = call.value(&["--bundle", "-b"]).map_or_else(|| PathBuf::from("."), PathBuf::from);
    let bundle = Bundle::open(&path)?;
    if bundle.is_sandbox() {
        return Err(delegate.become_it(&call.words));
    }
    let _changed = bundle.change(settings)?;
    let status = delegate.run(&call.words)?;
    if status != 0 {
        bundle.remove_own();
    }
    Ok(status)
}

fn exec(call: &Call, delegate: &Delegate) -> Result<u8, OciError> {
    let id = call.positional().ok_or(OciError::NoId)?;
    let state = delegate.state(call, id)?;
    if state.is_machine() {
        let path = PathBuf::from(call.value(&["--process", "-p"]).ok_or(OciError::NoProcess)?);
        let changed = process::of_exec(json::read(&path)?).map_err(|error| error.of(&path))?;
        atomic_write(&path, changed.to_string().as_bytes())
            .map_err(|source| OciError::Write { path: path.clone(), source })?;
    }
    Err(delegate.become_it(&call.words))
}

/// What a monitor needs on the host's side: to reach the files of the container as their owners do, and its network interface.
const CAPABILITIES: [&str; 6] =
    ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_NET_ADMIN", "CAP_NET_RAW"];

/// Makes `process` one of Coracle's own, with the words `args`. Its user, limits and capabilities were the workload's.
fn make_own(process: &mut serde_json::Map<String, Value>, args: Vec<String>, capabilities: &[&str]) {
    process.insert("args".into(), args.into());
    process.insert("cwd".into(), "/".into());
    process.insert("user".into(), serde_json::json!({"uid": 0, "gid": 0}));
    process.insert("noNewPrivileges".into(), true.into());
    process.remove("rlimits");
    let sets = ["bounding", "effective", "permitted"];
    let sets = sets.map(|set| (set.to_owned(), Value::from(capabilities)));
    process.insert("capabilities".into(), Value::Object(sets.into_iter().collect()));
}

/// A path below [`IN_CONTAINER`].
fn in_container(name: &str) -> String {
    format!("{IN_CONTAINER}/{name}")
}
