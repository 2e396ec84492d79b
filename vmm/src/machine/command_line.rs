// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the guest's kernel is told at its start, for each kind of host. Pure. Devices and `--append` come after.

use crate::kvm::KvmKind;
use boot::cmdline::{CommandLine, CommandLineError, Console};

/// The words that every guest gets, and those of this host.
pub(super) fn base(kind: KvmKind, cpus: u8) -> Result<CommandLine, CommandLineError> {
    let mut line = CommandLine::new();
    // The first port of the console device; until it is there, errors and panics go to the serial port.
    line.push_early_serial()?.push_console(Console::Virtio(0))?;
    line.push_flag("quiet")?;
    // A panic ends the machine at once, by the line that a restart takes as well.
    line.push_value("panic", -1)?.push_value("reboot", "k")?;
    if kind == KvmKind::Software {
        software(&mut line, cpus)?;
    }
    Ok(line)
}

/// Hosts that emulate guest kernel mode: every instruction of the kernel costs about 230 ns.
fn software(line: &mut CommandLine, cpus: u8) -> Result<(), CommandLineError> {
    // The gate needs the kernel's half in user mode's page tables; and there is nothing to mitigate between a kernel and
    // user mode that do not share a processor's privilege.
    line.push_value("mitigations", "off")?;
    // CLAC and STAC at each user copy; string instructions that are emulated byte by byte (395 is X86_FEATURE_FSRS, which has
    // no name: memset); and CMPXCHG16B in the slab allocator, which the host does not do at all.
    line.push_value("clearcpuid", "smap,erms,fsrm,395,cx16")?;
    if cpus == 1 {
        line.push_flag("noreplace-smp")?;
    }
    // /sys/kernel/slab and /sys/module/*/parameters: a fifth of the boot, and nobody looks.
    line.push_value("initcall_blacklist", "slab_late_init,param_sysfs_builtin_init")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_host_that_emulates_changes_what_the_kernel_sees_of_the_cpu() {
        let native = base(KvmKind::Native, 1).unwrap();
        let software = base(KvmKind::Software, 2).unwrap();
        assert!(!native.contains("clearcpuid") && !native.contains("mitigations"));
        assert!(software.contains("clearcpuid") && software.contains("mitigations"));
        assert!(!software.contains("noreplace-smp"), "two vCPUs need their lock prefixes patched in");
    }
}
