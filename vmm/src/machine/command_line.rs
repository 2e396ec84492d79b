// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the guest's kernel is told at its start, for each kind of host and each way of describing the machine. Pure.

use boot::cmdline::{CommandLine, CommandLineError, Console};
use boot::{Description, MmioDevice};
use kvm::KvmKind;

/// The words that every guest gets, those of this host, the devices where the kernel is told of them here, and the user's.
pub(super) fn whole(
    kind: KvmKind,
    cpus: u8,
    description: Description,
    devices: &[MmioDevice],
    append: &str,
) -> Result<CommandLine, CommandLineError> {
    let mut line = base(kind, cpus, description)?;
    if description == Description::CommandLine {
        for device in devices {
            line.push_virtio_mmio(device.window, device.line)?;
        }
    }
    line.append(append)?;
    Ok(line)
}

fn base(kind: KvmKind, cpus: u8, description: Description) -> Result<CommandLine, CommandLineError> {
    let mut line = CommandLine::new();
    // Read before the serial port is known: what the kernel has said by then would go there byte by byte, two exits each.
    line.push_flag("quiet")?;
    // The first port of the console device; until it is there, errors and panics go to the serial port.
    line.push_early_serial()?.push_console(Console::Virtio(0))?;
    // A panic ends the machine at once.
    line.push_value("panic", -1)?;
    // Restarts pull the keyboard controller's line, or write the FADT's reset register. The latter must be said: with
    // hardware-reduced ACPI a kernel that knows EFI asks EFI, and without one it jumps to a BIOS that is not there either.
    let restart = match description {
        Description::CommandLine => "k",
        Description::Acpi => "a",
    };
    line.push_value("reboot", restart)?;
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
        let native = base(KvmKind::Native, 1, Description::CommandLine).unwrap();
        let software = base(KvmKind::Software, 2, Description::CommandLine).unwrap();
        assert!(!native.contains("clearcpuid") && !native.contains("mitigations"));
        assert!(software.contains("clearcpuid") && software.contains("mitigations"));
        assert!(!software.contains("noreplace-smp"), "two vCPUs need their lock prefixes patched in");
    }

    #[test]
    fn devices_are_on_the_line_only_where_acpi_does_not_describe_them() {
        let devices = [MmioDevice { window: vm_memory::GuestAddress(0xd000_0000), line: 5 }];
        let words = |description| whole(KvmKind::Native, 1, description, &devices, "last").unwrap().to_string();
        let named = words(Description::CommandLine);
        assert!(named.contains(" reboot=k virtio_mmio.device=4K@0xd0000000:5 last"), "{named}");
        let acpi = words(Description::Acpi);
        assert!(!acpi.contains("virtio_mmio") && acpi.contains("reboot=a") && acpi.ends_with(" last"), "{acpi}");
    }
}
