// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The ioctls of a vCPU thread once the machine runs, by their numbers, for a filter of system calls. Pure.

use kvm_bindings::{
    KVMIO, kvm_clock_data, kvm_cpuid2, kvm_debugregs, kvm_irqchip, kvm_lapic_state, kvm_mp_state, kvm_msrs,
    kvm_pit_state2, kvm_regs, kvm_sregs, kvm_translation, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use vmm_sys_util::ioctl::{_IOC_NONE, _IOC_READ, _IOC_WRITE, ioctl_expr};

/// An ioctl as a filter compares it.
pub type VcpuIoctl = u64;

/// Those of the VM that a snapshot needs, on `main`.
pub const SNAPSHOT_IOCTLS: [VcpuIoctl; 3] = [
    both::<kvm_irqchip>(0x62),    // KVM_GET_IRQCHIP
    read::<kvm_pit_state2>(0x9f), // KVM_GET_PIT2
    read::<kvm_clock_data>(0x7c), // KVM_GET_CLOCK
];

/// The most frequent one first.
pub const VCPU_IOCTLS: [VcpuIoctl; 21] = [
    none(0x80),                     // KVM_RUN
    read::<kvm_regs>(0x81),         // KVM_GET_REGS
    write::<kvm_regs>(0x82),        // KVM_SET_REGS
    read::<kvm_sregs>(0x83),        // KVM_GET_SREGS
    write::<kvm_sregs>(0x84),       // KVM_SET_SREGS
    both::<kvm_translation>(0x85),  // KVM_TRANSLATE: --profile
    both::<kvm_msrs>(0x88),         // KVM_GET_MSRS
    write::<kvm_msrs>(0x89),        // KVM_SET_MSRS
    both::<kvm_cpuid2>(0x91),       // KVM_GET_CPUID2
    read::<kvm_vcpu_events>(0x9f),  // KVM_GET_VCPU_EVENTS
    write::<kvm_vcpu_events>(0xa0), // KVM_SET_VCPU_EVENTS
    read::<kvm_debugregs>(0xa1),    // KVM_GET_DEBUGREGS
    write::<kvm_debugregs>(0xa2),   // KVM_SET_DEBUGREGS
    write::<kvm_xsave>(0xa5),       // KVM_SET_XSAVE
    read::<kvm_xcrs>(0xa6),         // KVM_GET_XCRS
    none(0xad),                     // KVM_KVMCLOCK_CTRL
    read::<kvm_xsave>(0xcf),        // KVM_GET_XSAVE2
    read::<kvm_xsave>(0xa4),        // KVM_GET_XSAVE
    read::<kvm_lapic_state>(0x8e),  // KVM_GET_LAPIC
    read::<kvm_mp_state>(0x98),     // KVM_GET_MP_STATE
    none(0xa3),                     // KVM_GET_TSC_KHZ
];

const fn number(direction: u32, nr: u32, size: usize) -> VcpuIoctl {
    // The sizes are below 8 KiB.
    ioctl_expr(direction, KVMIO, nr, size as u32)
}

const fn none(nr: u32) -> VcpuIoctl {
    number(_IOC_NONE, nr, 0)
}

const fn read<T>(nr: u32) -> VcpuIoctl {
    number(_IOC_READ, nr, size_of::<T>())
}

const fn write<T>(nr: u32) -> VcpuIoctl {
    number(_IOC_WRITE, nr, size_of::<T>())
}

const fn both<T>(nr: u32) -> VcpuIoctl {
    number(_IOC_READ | _IOC_WRITE, nr, size_of::<T>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_kernels_headers() {
        // include/uapi/linux/kvm.h, as printed by a C program: KVM_RUN, KVM_GET_REGS, KVM_GET_MSRS, KVM_SET_XSAVE.
        for number in [0xae80, 0x8090_ae81, 0xc008_ae88, 0x5000_aea5] {
            assert!(VCPU_IOCTLS.contains(&number), "{number:#x}");
        }
        let distinct: std::collections::HashSet<_> = VCPU_IOCTLS.into_iter().collect();
        assert_eq!(distinct.len(), VCPU_IOCTLS.len());
    }
}
