// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The kernel's VM: memory slots, the interrupt controllers, and the event descriptors that the kernel serves.
//! Runs on `main` while the machine is built.
#![allow(unsafe_code)] // KVM_SET_USER_MEMORY_REGION hands host addresses to the kernel.

use super::host::{KvmHost, KvmKind};
use super::software::{Software, SoftwareVcpu};
use boot::GuestMemory;
use boot::layout;
use kvm_bindings::{KVM_PIT_SPEAKER_DUMMY, kvm_pit_config, kvm_userspace_memory_region};
use kvm_ioctls::{IoEventAddress, VcpuFd, VmFd};
use std::sync::Arc;
use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _};
use vmm_sys_util::eventfd::EventFd;

/// One step of making a VM failed.
#[derive(Debug, thiserror::Error)]
#[error("{step} failed")]
pub struct VmError {
    pub(super) step: &'static str,
    #[source]
    pub(super) source: kvm_ioctls::Error,
}

/// Names the ioctl that failed.
pub(super) fn step(step: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> VmError {
    move |source| VmError { step, source }
}

/// A VM with its memory and interrupt controllers, without vCPUs.
#[derive(Debug)]
pub struct KvmVm {
    fd: VmFd,
    memory: GuestMemory,
    /// What a host that emulates guest kernel mode needs; `None` on every other.
    software: Option<Arc<Software>>,
}

impl KvmVm {
    /// Creates the VM, its interrupt controllers and timer, and gives it `memory`.
    ///
    /// # Errors
    /// The host refused a step.
    pub fn create(host: &KvmHost, memory: GuestMemory) -> Result<Self, VmError> {
        let fd = create(host)?;
        fd.set_identity_map_address(layout::KVM_IDENTITY_MAP.0).map_err(step("KVM_SET_IDENTITY_MAP_ADDR"))?;
        fd.set_tss_address(layout::KVM_TSS.0 as usize).map_err(step("KVM_SET_TSS_ADDR"))?;
        fd.create_irq_chip().map_err(step("KVM_CREATE_IRQCHIP"))?;
        let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
        fd.create_pit2(pit).map_err(step("KVM_CREATE_PIT2"))?;
        for (slot, region) in memory.iter().enumerate() {
            let region = kvm_userspace_memory_region {
                slot: u32::try_from(slot).expect("guest memory has two regions at most"),
                flags: 0,
                guest_phys_addr: region.start_addr().0,
                memory_size: region.len(),
                userspace_addr: region.as_ptr() as u64,
            };
            // SAFETY: the range is a mapping that `memory` owns; `self` keeps it alive until the VM is closed, and
            // regions of one `GuestMemoryMmap` do not overlap.
            unsafe { fd.set_user_memory_region(region) }.map_err(step("KVM_SET_USER_MEMORY_REGION"))?;
        }
        let software = match host.kind() {
            KvmKind::Native => None,
            KvmKind::Software => Some(Arc::new(Software::install(&fd, &memory)?)),
        };
        Ok(Self { fd, memory, software })
    }

    /// The VM's memory.
    #[must_use]
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// What a new vCPU needs where the host emulates guest kernel mode. Its CPUID must be set.
    pub(super) fn software_vcpu(&self) -> Result<Option<SoftwareVcpu>, VmError> {
        self.software.as_ref().map(|software| SoftwareVcpu::new(Arc::clone(software), &self.fd)).transpose()
    }

    pub(super) fn create_vcpu(&self, index: u8) -> Result<VcpuFd, VmError> {
        self.fd.create_vcpu(u64::from(index)).map_err(step("KVM_CREATE_VCPU"))
    }

    /// Lets a write to `event` raise interrupt line `line`.
    ///
    /// # Errors
    /// The host refused it.
    pub fn connect_interrupt(&self, event: &EventFd, line: u32) -> Result<(), VmError> {
        self.fd.register_irqfd(event, line).map_err(step("KVM_IRQFD"))
    }

    /// Lets the guest's 32-bit write of `value` to the MMIO `address` signal `event` without leaving the kernel.
    ///
    /// # Errors
    /// The host refused it.
    pub fn connect_queue_event(&self, event: &EventFd, address: u64, value: u32) -> Result<(), VmError> {
        self.fd.register_ioevent(event, &IoEventAddress::Mmio(address), value).map_err(step("KVM_IOEVENTFD"))
    }
}

/// `KVM_CREATE_VM` gives up with `EINTR` when a signal is pending (it waits for other CPUs): ask again.
fn create(host: &KvmHost) -> Result<VmFd, VmError> {
    loop {
        match host.kvm.create_vm() {
            Err(error) if error.errno() == libc::EINTR => {}
            result => return result.map_err(step("KVM_CREATE_VM")),
        }
    }
}
