// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `snapshot inspect`: what the state of a snapshot says.

use super::machines::{json_text, print};
use super::{table, words};
use crate::config::rfc3339;
use crate::machine::snapshot::{InspectedSnapshot, OpenSnapshot, SnapshotDocument, VERSION};
use crate::run::failure::{self, FailsAs as _};
use crate::run::restore;
use crate::state::end::EndReason;
use clap::Args;
use devices::virtio::mmio::TransportState;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Print what a snapshot is of, and the digests of its files
#[derive(Debug, Args)]
#[command(after_help = "\
The state is checked, and that the other files have their sizes; `restore`
checks their digests.

Examples:
  coracle snapshot inspect ./web.snapshot
  coracle snapshot inspect --json warm | jq .request.image")]
pub(super) struct InspectArguments {
    /// Directory of the snapshot, or its name in the store
    #[arg(value_name = "SNAPSHOT", value_hint = clap::ValueHint::DirPath)]
    snapshot: PathBuf,
    /// Print one JSON object in place of lines
    #[arg(long)]
    json: bool,
}

/// Prints the snapshot and returns the exit status.
pub(super) fn inspect(arguments: &InspectArguments) -> u8 {
    let inspected = restore::find(&arguments.snapshot)
        .and_then(|directory| OpenSnapshot::inspect(&directory).fails_as(EndReason::SnapshotError));
    match inspected {
        Ok(snapshot) => {
            print(&if arguments.json { json_text(&document(&snapshot)) } else { lines(&snapshot) });
            0
        }
        Err(failure) => failure::fail(&failure),
    }
}

/// In a request of any version.
pub(super) fn image(document: &SnapshotDocument) -> &str {
    document.request.get("image").and_then(Value::as_str).unwrap_or_default()
}

fn device_name(device: &TransportState) -> String {
    let unknown = || format!("type {}", device.device_id());
    device.kind().map_or_else(unknown, |kind| kind.kernel_module.replace('_', "-"))
}

fn lines(snapshot: &InspectedSnapshot) -> String {
    let InspectedSnapshot { document, memory_space, scratch_space } = snapshot;
    let state = &document.state;
    let vcpu = state.vcpus.first();
    let stored = |space: u64, bytes: u64| format!("{} of {}", words::binary_size(space), words::binary_size(bytes));
    let name = |device: &TransportState| {
        let unused = if device.is_active() { "" } else { " (not in use)" };
        device_name(device) + unused
    };
    let scratch = document.scratch.as_ref().zip(*scratch_space);
    let lines = [
        ("machine", document.machine.clone()),
        ("created", rfc3339::format(document.created)),
        ("versions", format!("format {VERSION}, coracle {}, protocol {}", document.coracle, document.protocol)),
        ("image", image(document).to_owned()),
        ("root disk", document.image.root_disk_digest.clone()),
        ("vcpus", state.vcpus.len().to_string()),
        ("processor", vcpu.map(kvm::SavedVcpu::processor_name).unwrap_or_default()),
        ("kvm", state.vm.kind().name().to_owned()),
        ("memory", stored(*memory_space, document.memory.bytes)),
        ("", document.memory.sha256.clone()),
        ("scratch", scratch.as_ref().map(|(part, space)| stored(*space, part.bytes)).unwrap_or_default()),
        ("", scratch.map(|(part, _)| part.sha256.clone()).unwrap_or_default()),
        ("devices", state.transports.iter().map(name).collect::<Vec<_>>().join(", ")),
    ];
    let shown = lines.into_iter().filter(|(_, value)| !value.is_empty());
    shown.map(|(name, value)| format!("{name:<13} {}\n", table::cell(&value, None))).collect()
}

fn document(snapshot: &InspectedSnapshot) -> Value {
    let InspectedSnapshot { document, memory_space, scratch_space } = snapshot;
    let state = &document.state;
    let vcpus = state.vcpus.iter().map(|vcpu| {
        let name = vcpu.processor_name();
        json!({
            "processor": Some(name).filter(|name| !name.is_empty()),
            "tsc_khz": vcpu.tsc_khz(),
            "instruction_pointer": format!("{:#x}", vcpu.instruction_pointer()),
        })
    });
    let devices = state.transports.iter().map(|device| {
        json!({
            "type": device_name(device),
            "active": device.is_active(),
            "queues": device.queues(),
            "driver_features": format!("{:#x}", device.driver_features()),
        })
    });
    json!({
        "version": VERSION,
        "coracle": document.coracle,
        "protocol": document.protocol,
        "created": rfc3339::format(document.created),
        "machine": document.machine,
        "image": image(document),
        "root_disk": document.image.root_disk_digest,
        "directory": document.directory.display().to_string(),
        "request": document.request,
        "kvm": state.vm.kind().name(),
        "vcpus": vcpus.collect::<Vec<_>>(),
        "memory": {
            "bytes": document.memory.bytes,
            "stored_bytes": memory_space,
            "sha256": document.memory.sha256,
        },
        "scratch": document.scratch.as_ref().zip(*scratch_space).map(|(part, space)| json!({
            "bytes": part.bytes,
            "stored_bytes": space,
            "sha256": part.sha256,
        })),
        "devices": devices.collect::<Vec<_>>(),
    })
}
