// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The kernel's VM: memory slots, the interrupt controllers, and the event descriptors that the
//! kernel serves. Runs on `main` while the machine is built.
#![allow(unsafe_code)] // KVM_SET_USER_MEMORY_REGION passes host addresses to the kernel.

use crate::GuestMemory;
use crate::host::{KvmHost, KvmKind};
use crate::restriction;
use crate::saved::StateExtent;
use crate::software::{Software, SoftwareVcpu};
use kvm_bindings::{KVM_PIT_SPEAKER_DUMMY, kvm_pit_config, kvm_userspace_memory_region};
use kvm_ioctls::{IoEventAddress, VcpuFd, VmFd};
use std::sync::Arc;
use vm_memory::{GuestAddress, GuestMemoryBackend as _, GuestMemoryRegion as _};
use vmm_sys_util::eventfd::EventFd;

/// An ioctl of a VM or a vCPU failed.
#[derive(Debug, thiserror::Error)]
#[error("{ioctl} failed")]
pub struct VmError {
    pub(super) ioctl: &'static str,
    #[source]
    pub(super) source: kvm_ioctls::Error,
}

/// Makes a [`VmError`] that names the ioctl.
pub(super) fn failed(ioctl: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> VmError {
    move |source| VmError { ioctl, source }
}

/// Guest-physical pages that belong to KVM, not to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReservedPages {
    /// One page that Intel hosts need for real mode. Outside guest memory.
    pub identity_map: GuestAddress,
    /// Three pages that Intel hosts need for real mode. Outside guest memory.
    pub tss: GuestAddress,
    /// Four pages of guest memory for the system-call gate of hosts that emulate guest kernel mode;
    /// reserved in the guest's memory map.
    pub syscall_gate: GuestAddress,
    /// The page that the gate stores to. Outside guest memory and every device.
    pub syscall_gate_mmio: GuestAddress,
}

/// A VM with its memory and interrupt controllers, without vCPUs.
#[derive(Debug)]
pub struct KvmVm {
    pub(super) fd: VmFd,
    memory: GuestMemory,
    /// Present where the host emulates guest kernel mode.
    pub(super) software: Option<Arc<Software>>,
    /// Found out here, because a confined thread cannot.
    pub(super) extent: Arc<StateExtent>,
}

impl KvmVm {
    /// Creates the VM, its interrupt controllers and timer, and its memory slots.
    ///
    /// # Errors
    /// An ioctl failed.
    pub fn create(host: &KvmHost, memory: GuestMemory, reserved: ReservedPages) -> Result<Self, VmError> {
        let fd = create_vm(host)?;
        restriction::apply(&fd)?;
        fd.set_identity_map_address(reserved.identity_map.0).map_err(failed("KVM_SET_IDENTITY_MAP_ADDR"))?;
        fd.set_tss_address(reserved.tss.0 as usize).map_err(failed("KVM_SET_TSS_ADDR"))?;
        fd.create_irq_chip().map_err(failed("KVM_CREATE_IRQCHIP"))?;
        let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
        fd.create_pit2(pit).map_err(failed("KVM_CREATE_PIT2"))?;
        for (slot, region) in memory.iter().enumerate() {
            let region = kvm_userspace_memory_region {
                slot: u32::try_from(slot).expect("guest memory has two regions at most"),
                flags: 0,
                guest_phys_addr: region.start_addr().0,
                memory_size: region.len(),
                userspace_addr: region.as_ptr() as u64,
            };
            // SAFETY: the range is a mapping that `memory` owns; `self` keeps it alive until the VM
            // is closed, and regions of one `GuestMemoryMmap` do not overlap.
            unsafe { fd.set_user_memory_region(region) }.map_err(failed("KVM_SET_USER_MEMORY_REGION"))?;
        }
        let software = match host.kind() {
            KvmKind::Native => None,
            KvmKind::Software => Some(Arc::new(Software::install(&fd, &memory, &reserved)?)),
        };
        let extent = Arc::new(StateExtent::of(host, &fd)?);
        Ok(Self { fd, memory, software, extent })
    }

    #[must_use]
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// State of a new vCPU for hosts that emulate guest kernel mode. The vCPU's CPUID must be set
    /// before.
    pub(super) fn software_vcpu(&self) -> Result<Option<SoftwareVcpu>, VmError> {
        self.software.as_ref().map(|software| SoftwareVcpu::new(Arc::clone(software), &self.fd)).transpose()
    }

    pub(super) fn create_vcpu(&self, index: u8) -> Result<VcpuFd, VmError> {
        self.fd.create_vcpu(u64::from(index)).map_err(failed("KVM_CREATE_VCPU"))
    }

    /// A write to `event` raises interrupt line `line` from now on.
    ///
    /// # Errors
    /// `KVM_IRQFD` failed.
    pub fn connect_interrupt(&self, event: &EventFd, line: u32) -> Result<(), VmError> {
        self.fd.register_irqfd(event, line).map_err(failed("KVM_IRQFD"))
    }

    /// The guest's 32-bit write of `value` to the MMIO `address` signals `event` from now on,
    /// without an exit to user space.
    ///
    /// # Errors
    /// `KVM_IOEVENTFD` failed.
    pub fn connect_queue_event(&self, event: &EventFd, address: u64, value: u32) -> Result<(), VmError> {
        self.fd.register_ioevent(event, &IoEventAddress::Mmio(address), value).map_err(failed("KVM_IOEVENTFD"))
    }
}

/// `KVM_CREATE_VM` waits for other CPUs and fails with `EINTR` when a signal is pending: repeat it.
fn create_vm(host: &KvmHost) -> Result<VmFd, VmError> {
    loop {
        match host.kvm.create_vm() {
            Err(error) if error.errno() == libc::EINTR => {}
            result => return result.map_err(failed("KVM_CREATE_VM")),
        }
    }
}
