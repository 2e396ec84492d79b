// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `status`: what is known of one machine. From the machine itself while it runs, so that the counters are of this
//! moment; else from its entry.

use super::machines::{self, MachineArgument, print};
use super::{ps, words};
use crate::api::client::Client;
use crate::run::failure::Failure;
use crate::state::machines::MachineInfo;
use clap::Args;
use std::time::SystemTime;

/// Show what is known of a machine
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coracle status web
  coracle status --json web | jq .counters")]
pub(super) struct StatusArguments {
    #[command(flatten)]
    machine: MachineArgument,
    /// One JSON object instead of lines
    #[arg(long)]
    json: bool,
}

/// Shows and returns the exit status.
pub(super) fn status(arguments: &StatusArguments) -> u8 {
    machines::status(show(arguments).map(|text| print(&text)))
}

fn show(arguments: &StatusArguments) -> Result<String, Failure> {
    let mut entry = arguments.machine.find()?;
    // One that does not answer is shown as it last said of itself.
    if !entry.has_ended()
        && let Ok(status) = Client::connect(&entry.path).and_then(|mut client| client.request("GET", "/v1/status", &()))
    {
        entry.status = Some(status);
    }
    Ok(if arguments.json {
        serde_json::to_string_pretty(&ps::document(&entry)).expect("the keys are strings and the numbers finite") + "\n"
    } else {
        lines(&entry)
    })
}

fn lines(entry: &MachineInfo) -> String {
    let mut lines = vec![("name", entry.name.clone()), ("state", ps::state_words(entry, SystemTime::now()))];
    if let Some(status) = &entry.status {
        let counters = &status.counters;
        lines.extend([
            ("ready", status.ready.to_string()),
            ("process", status.pid.to_string()),
            ("image", status.image.clone().unwrap_or_default()),
            ("command", status.command.join(" ")),
            ("addresses", status.addresses.join(" ")),
            ("machine", format!("{} vCPU, {}", status.cpus, words::binary_size(status.memory_bytes))),
            ("cpu time", format!("{:.3} s", (counters.cpu_vcpu_ns + counters.cpu_vmm_ns) as f64 / 1e9)),
            ("memory", words::binary_size(counters.memory_resident_bytes)),
        ]);
        if let Some(health) = &status.health {
            let streak = format!("{:?}, {} failures in a row", health.status, health.failing_streak).to_lowercase();
            lines.push(("health", streak));
            lines.push(("check said", health.output.clone()));
        }
        if let Some(end) = &status.end {
            lines.push(("end", format!("{}, status {}", end.reason, end.status)));
            lines.push(("detail", end.detail.clone()));
        }
    }
    let shown = lines.into_iter().filter(|(_, value)| !value.is_empty());
    shown.map(|(name, value)| format!("{name:<10} {}\n", super::table::cell(&value, None))).collect()
}
