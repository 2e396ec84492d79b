// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The guest kernel's command line, for each kind of host and each description of the machine.
//! Pure.

use boot::cmdline::{CommandLine, CommandLineError, Console};
use boot::{HardwareDescription, MmioDevice};
use kvm::KvmKind;

/// Options of every guest, of this kind of host, for the devices where nothing else describes them,
/// and `append`.
pub(super) fn build(
    kind: KvmKind,
    cpus: u8,
    description: HardwareDescription,
    devices: &[MmioDevice],
    append: &str,
) -> Result<CommandLine, CommandLineError> {
    let mut line = base(kind, cpus, description)?;
    if description == HardwareDescription::CommandLine {
        for device in devices {
            line.push_virtio_mmio(device.window, device.line)?;
        }
    }
    line.append(append)?;
    Ok(line)
}

fn base(kind: KvmKind, cpus: u8, description: HardwareDescription) -> Result<CommandLine, CommandLineError> {
    let mut line = CommandLine::new();
    // Applies before the serial port is set up. The messages until then would go there byte by
    // byte, with two exits each.
    line.push_flag("quiet")?;
    // The first port of the console device. Until it exists, errors and panics go to the serial
    // port.
    line.push_early_serial()?.push_console(Console::Virtio(0))?;
    // A panic resets the machine at once.
    line.push_value("panic", -1)?;
    // A restart pulls the keyboard controller's line, or writes the FADT's reset register. The
    // latter is not the default: with hardware-reduced ACPI a kernel with EFI support calls EFI,
    // and one without jumps to a BIOS, and neither exists here.
    let restart = match description {
        HardwareDescription::CommandLine => "k",
        HardwareDescription::Acpi => "a",
    };
    line.push_value("reboot", restart)?;
    if kind == KvmKind::Software {
        software(&mut line, cpus)?;
    }
    Ok(line)
}

/// Options for hosts that emulate guest kernel mode, where each instruction of the kernel costs
/// about 230 ns.
fn software(line: &mut CommandLine, cpus: u8) -> Result<(), CommandLineError> {
    // The system-call gate needs the kernel's half in user mode's page tables. And the kernel and
    // user mode run at the same privilege of the processor: there is nothing to mitigate between
    // them.
    line.push_value("mitigations", "off")?;
    // CLAC and STAC at each user copy; string instructions, which are emulated byte by byte (395 is
    // X86_FEATURE_FSRS, which has no name: memset); and CMPXCHG16B in the slab allocator, which the
    // host does not emulate at all.
    line.push_value("clearcpuid", "smap,erms,fsrm,395,cx16")?;
    if cpus == 1 {
        line.push_flag("noreplace-smp")?;
    }
    // A page fault is a thousand instructions: folios of 16 to 64 KiB take a fifth of the faults. 8 MiB of a Python program
    // then cost 0.8 s of vCPU time instead of 4.3, and fork, exec and wait of a small program 5 % less.
    line.push_value("thp_anon", "16K-64K:always")?;
    // /sys/kernel/slab, /sys/module/*/parameters and /sys/kernel/irq: a fifth of the boot, and rarely read.
    line.push_value("initcall_blacklist", "slab_late_init,param_sysfs_builtin_init,irq_sysfs_init")?;
    // Splitting the kernel's large pages to protect its text is 3 % of the instructions of a boot. It protects nothing where
    // user mode runs at the kernel's privilege.
    line.push_value("rodata", "off")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_features_are_cleared_only_on_emulating_hosts() {
        let native = base(KvmKind::Native, 1, HardwareDescription::CommandLine).unwrap();
        let software = base(KvmKind::Software, 2, HardwareDescription::CommandLine).unwrap();
        assert!(!native.contains("clearcpuid") && !native.contains("mitigations"));
        assert!(software.contains("clearcpuid") && software.contains("mitigations"));
        assert!(!software.contains("noreplace-smp"), "two vCPUs need lock prefixes");
    }

    #[test]
    fn devices_are_on_the_line_only_without_acpi() {
        let devices = [MmioDevice { window: vm_memory::GuestAddress(0xd000_0000), line: 5 }];
        let line = |description| build(KvmKind::Native, 1, description, &devices, "last").unwrap().to_string();
        let without_acpi = line(HardwareDescription::CommandLine);
        assert!(without_acpi.contains(" reboot=k virtio_mmio.device=4K@0xd0000000:5 last"), "{without_acpi}");
        let acpi = line(HardwareDescription::Acpi);
        assert!(!acpi.contains("virtio_mmio") && acpi.contains("reboot=a") && acpi.ends_with(" last"), "{acpi}");
    }
}
