// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `status`: prints the status of one machine: from the machine itself while it runs, so
//! that the counters are fresh; else from its run directory.

use super::machines::{self, MachineArgument, json_text, print};
use super::{ps, words};
use crate::api::client::Client;
use crate::run::failure::Failure;
use crate::state::machines::MachineInfo;
use clap::Args;
use std::time::SystemTime;

/// Show the status of a machine
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coracle status web
  coracle status --json web | jq .counters")]
pub(super) struct StatusArguments {
    #[command(flatten)]
    machine: MachineArgument,
    /// Print one JSON object in place of lines
    #[arg(long)]
    json: bool,
}

/// Returns the exit status.
pub(super) fn status(arguments: &StatusArguments) -> u8 {
    machines::status(show(arguments).map(|text| print(&text)))
}

fn show(arguments: &StatusArguments) -> Result<String, Failure> {
    let mut machine = arguments.machine.find()?;
    // For a machine that does not answer, status.json is shown.
    if !machine.has_ended()
        && let Ok(status) =
            Client::connect(&machine.path).and_then(|mut client| client.request("GET", "/v1/status", &()))
    {
        machine.status = Some(status);
    }
    Ok(if arguments.json { json_text(&ps::document(&machine)) } else { lines(&machine) })
}

fn lines(machine: &MachineInfo) -> String {
    let mut lines = vec![("name", machine.name.clone()), ("state", ps::state_words(machine, SystemTime::now()))];
    if let Some(status) = &machine.status {
        let counters = &status.counters;
        lines.extend([
            ("container id", status.container_id.clone()),
            ("ready", status.ready.to_string()),
            ("process", status.pid.to_string()),
            ("image", status.image.clone().unwrap_or_default()),
            ("command", status.command.join(" ")),
            ("addresses", status.addresses.join(" ")),
            ("links", status.links.iter().map(|link| link.name()).collect::<Vec<_>>().join(" ")),
            ("ports", status.shown_ports().join(", ")),
            ("machine", format!("{} vCPU, {}", status.cpus, words::binary_size(status.memory_bytes))),
            ("cpu time", format!("{:.3} s", (counters.cpu_vcpu_ns + counters.cpu_vmm_ns) as f64 / 1e9)),
            ("memory", words::binary_size(counters.memory_resident_bytes)),
        ]);
        if let Some(health) = &status.health {
            let streak = format!("{:?}, {} failures in a row", health.status, health.failing_streak).to_lowercase();
            lines.push(("health", streak));
            lines.push(("check output", health.output.clone()));
        }
        if let Some(end) = &status.end {
            lines.push(("end", format!("{}, status {}", end.reason, end.status)));
            lines.push(("detail", end.detail.clone()));
        }
    }
    let shown = lines.into_iter().filter(|(_, value)| !value.is_empty());
    shown.map(|(name, value)| format!("{name:<13} {}\n", super::table::cell(&value, None))).collect()
}
