// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A snapshot document for tests, of a VM without vCPUs and devices.

use super::document::{Part, SavedMachine, SnapshotDocument, StreamCounts};
use crate::config::root_format::RootFormatChoice;
use crate::machine::ConsoleLog;
use crate::machine::supervisor::SupervisorState;
use crate::state::kept::KeptImage;
use boot::layout;
use devices::legacy::Serial;
use guest_protocol::protocol;
use kvm::{GuestMemory, KvmHost, KvmVm, ReservedPages};
use oci_image::ImageConfig;
use std::sync::Arc;
use std::time::SystemTime;
use vmm_sys_util::eventfd::EventFd;

pub(crate) fn document() -> SnapshotDocument {
    let reserved = ReservedPages {
        identity_map: layout::KVM_IDENTITY_MAP,
        tss: layout::KVM_TSS,
        syscall_gate: layout::SYSCALL_GATE,
        syscall_gate_mmio: layout::SYSCALL_GATE_MMIO,
    };
    let memory = GuestMemory::from_ranges(&layout::memory_regions(1 << 20)).unwrap();
    let vm = KvmVm::create(&KvmHost::open().unwrap(), memory, reserved).unwrap();
    let serial = Serial::new(Arc::new(ConsoleLog::new(None)), EventFd::new(0).unwrap());
    SnapshotDocument {
        coracle: env!("CARGO_PKG_VERSION").to_owned(),
        protocol: protocol::VERSION,
        created: SystemTime::UNIX_EPOCH,
        machine: "web".to_owned(),
        request: serde_json::Map::new(),
        directory: "/".into(),
        image: KeptImage {
            digest: "sha256:1".to_owned(),
            chain_id: "sha256:2".to_owned(),
            root_disk_digest: "sha256:0".to_owned(),
            format: RootFormatChoice::Auto,
            config: ImageConfig::default(),
        },
        memory: Part { bytes: 1 << 20, sha256: String::new() },
        scratch: None,
        state: SavedMachine {
            vm: vm.save().unwrap(),
            vcpus: Vec::new(),
            serial: serial.save(),
            transports: Vec::new(),
            supervisor: SupervisorState::default(),
            streams: StreamCounts::default(),
        },
    }
}
