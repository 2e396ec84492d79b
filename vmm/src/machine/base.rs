// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a machine is built on: its memory and its VM, new or with a saved state. The saved state comes first, before a device or a
//! disk of the machine is used: a template that this host rejects is given up for a start of the kernel. Runs on `main`.

use super::build::BuildError;
use super::snapshot::{Restore, SavedMachine};
use crate::host::memory;
use crate::host::system_error::chain;
use crate::state::end::EndReason;
use boot::layout;
use kvm::{GuestMemory, KvmHost, KvmKind, KvmVm, ReservedPages, Vcpu, VmError};

const RESERVED_PAGES: ReservedPages = ReservedPages {
    identity_map: layout::KVM_IDENTITY_MAP,
    tss: layout::KVM_TSS,
    syscall_gate: layout::SYSCALL_GATE,
    syscall_gate_mmio: layout::SYSCALL_GATE_MMIO,
};

/// A VM without devices.
#[derive(Debug)]
pub(super) struct Base {
    /// Before the VM, so that they are closed first.
    pub(super) restored: Option<Restored>,
    pub(super) vm: KvmVm,
}

/// What a VM with a saved state has besides.
#[derive(Debug)]
pub(super) struct Restored {
    pub(super) vcpus: Vec<Vcpu>,
    /// The rest of the saved machine: serial port, devices, streams.
    pub(super) state: SavedMachine,
    pub(super) has_other_devices: bool,
}

/// Size of a machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) memory_bytes: u64,
    pub(super) cpus: u8,
}

/// Creates a VM, with the state of `restore` if there is one. With `may_start_new` a state that cannot be restored is only a
/// warning.
///
/// # Errors
/// The host lacks a resource, or the state cannot be restored.
pub(super) fn create(
    host: &KvmHost,
    size: Size,
    restore: Option<Restore>,
    may_start_new: bool,
) -> Result<Base, BuildError> {
    match restore.map(|restore| restored(host, size, restore)) {
        Some(Err(error)) if may_start_new && error.reason() == EndReason::SnapshotError => {
            log::warn!("the template is removed: {}", chain(&error));
        }
        Some(outcome) => return outcome,
        None => {}
    }
    // Where kernel mode is emulated a huge page is cleared for a guest that touches little of it.
    let memory = memory::allocate(size.memory_bytes, host.kind() == KvmKind::Native)?;
    Ok(Base { restored: None, vm: create_vm(host, memory)? })
}

fn restored(host: &KvmHost, size: Size, restore: Restore) -> Result<Base, BuildError> {
    let Restore { state, memory, has_other_devices } = restore;
    let vm = create_vm(host, memory::map_snapshot(size.memory_bytes, memory)?)?;
    same_shape("vCPUs", state.vcpus.len(), size.cpus.into())?;
    vm.restore(&state.vm)?;
    let vcpus = kvm::restore_vcpus(host, &vm, &state.vcpus)?;
    Ok(Base { restored: Some(Restored { vcpus, state, has_other_devices }), vm })
}

fn create_vm(host: &KvmHost, memory: GuestMemory) -> Result<KvmVm, VmError> {
    KvmVm::create(host, memory, RESERVED_PAGES)
}

pub(super) fn same_shape(what: &'static str, saved: usize, here: usize) -> Result<(), BuildError> {
    if saved == here { Ok(()) } else { Err(BuildError::Shape { what, saved, here }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::snapshot::testing;
    use rustix::fs::{MemfdFlags, memfd_create};
    use std::fs::File;

    const SIZE: Size = Size { memory_bytes: 1 << 20, cpus: 0 };

    /// A state whose number of vCPUs no VM can have.
    fn impossible() -> Restore {
        let memory = File::from(memfd_create("memory", MemfdFlags::CLOEXEC).unwrap());
        memory.set_len(SIZE.memory_bytes).unwrap();
        Restore { state: testing::document().state, memory, has_other_devices: true }
    }

    #[test]
    fn rejected_template_gives_way_to_a_new_vm() {
        let host = KvmHost::open().unwrap();
        let base = create(&host, SIZE, Some(impossible()), true).unwrap();
        assert!(base.restored.is_none());
        let error = create(&host, SIZE, Some(impossible()), false).unwrap_err();
        assert!(chain(&error).contains("0 vCPUs"), "{}", chain(&error));
        let of_another_shape = create(&host, Size { cpus: 1, ..SIZE }, Some(impossible()), false).unwrap_err();
        assert!(matches!(of_another_shape, BuildError::Shape { what: "vCPUs", saved: 0, here: 1 }));
    }
}
