// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which kind of KVM this host has. The loaded module nearly always decides it; otherwise
//! (everything built into the kernel, nothing in `/sys/module`) a guest of two instructions does.
//! Runs on `main`, once.
#![allow(unsafe_code)] // The probe guest needs one page of memory and its slot.

use crate::host::KvmKind;
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VcpuExit};
use std::path::Path;
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap, GuestMemoryRegion as _};

/// Kernel modules whose KVM runs guest kernel mode on the processor, of both vendors.
const NATIVE_MODULES: [&str; 2] = ["kvm_intel", "kvm_amd"];
/// The module whose KVM emulates it.
const SOFTWARE_MODULE: &str = "kvm_pvm";

/// The kind of `kvm`.
///
/// # Errors
/// The modules do not decide it, and the probe guest failed to run.
pub(crate) fn kind(kvm: &Kvm) -> Result<KvmKind, kvm_ioctls::Error> {
    match by_modules(Path::new("/sys/module")) {
        Some(kind) => Ok(kind),
        None => by_probe(kvm),
    }
}

/// The kind of the loaded modules, if they agree: one module serves `/dev/kvm` at a time.
fn by_modules(directory: &Path) -> Option<KvmKind> {
    let software = directory.join(SOFTWARE_MODULE).exists();
    let native = NATIVE_MODULES.iter().any(|module| directory.join(module).exists());
    match (software, native) {
        (true, false) => Some(KvmKind::Software),
        (false, true) => Some(KvmKind::Native),
        _ => None,
    }
}

/// `popcnt %eax, %eax; hlt`: a processor executes both, the emulator stops at the first.
const PROBE: [u8; 5] = [0xf3, 0x0f, 0xb8, 0xc0, 0xf4];
const PROBE_ADDRESS: u64 = 0x1000;

fn by_probe(kvm: &Kvm) -> Result<KvmKind, kvm_ioctls::Error> {
    let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(PROBE_ADDRESS), 0x1000)])
        .map_err(|_| kvm_ioctls::Error::new(libc::ENOMEM))?;
    memory.write_slice(&PROBE, GuestAddress(PROBE_ADDRESS)).expect("the probe fits its page");
    let vm = kvm.create_vm()?;
    let region = memory.iter().next().expect("one region was created");
    let slot = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: PROBE_ADDRESS,
        memory_size: region.len(),
        userspace_addr: region.as_ptr() as u64,
    };
    // SAFETY: `memory` owns the mapping and outlives the VM, which is closed when this function
    // returns.
    unsafe { vm.set_user_memory_region(slot) }?;
    let mut vcpu = vm.create_vcpu(0)?;
    let mut special = vcpu.get_sregs()?;
    // Flat protected mode without paging: processors without "unrestricted guest" would emulate
    // real mode.
    special.cr0 |= 1;
    special.cs.base = 0;
    special.cs.limit = u32::MAX;
    special.cs.g = 1;
    special.cs.db = 1;
    special.cs.selector = 8;
    vcpu.set_sregs(&special)?;
    let mut registers = vcpu.get_regs()?;
    registers.rip = PROBE_ADDRESS;
    registers.rflags = 2;
    vcpu.set_regs(&registers)?;
    loop {
        return match vcpu.run() {
            Ok(VcpuExit::Hlt) => Ok(KvmKind::Native),
            Ok(_) => Ok(KvmKind::Software),
            Err(error) if error.errno() == libc::EINTR => continue,
            Err(error) => Err(error),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_modules_is_none_without_modules_and_with_both_kinds() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(by_modules(directory.path()), None);
        std::fs::create_dir(directory.path().join("kvm_amd")).unwrap();
        assert_eq!(by_modules(directory.path()), Some(KvmKind::Native));
        std::fs::create_dir(directory.path().join("kvm_pvm")).unwrap();
        assert_eq!(by_modules(directory.path()), None);
        std::fs::remove_dir(directory.path().join("kvm_amd")).unwrap();
        assert_eq!(by_modules(directory.path()), Some(KvmKind::Software));
    }

    #[test]
    fn by_probe_agrees_with_by_modules() {
        let Ok(kvm) = Kvm::new() else {
            eprintln!("skipped: no /dev/kvm");
            return;
        };
        let Some(named) = by_modules(Path::new("/sys/module")) else {
            eprintln!("skipped: the modules do not decide the kind");
            return;
        };
        assert_eq!(by_probe(&kvm).unwrap(), named);
    }
}
