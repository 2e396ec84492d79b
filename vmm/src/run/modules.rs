// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The initramfs, and which kernel modules it brings: drivers and file systems that the guest needs and that the kernel does
//! not have built in. The reverse, too: which drivers were missing when a guest left devices unused. Runs on the thread
//! `prepare`, the diagnosis on `main`.

use super::failure::{FailsAs as _, Failure};
use crate::config::request::Request;
use crate::state::end::EndReason;
use boot::initramfs::FileTooLarge;
use boot::modules::{Module, WantedModule};
use boot::{Feature, HardwareDescription, Initramfs, Kernel};
use devices::virtio::{DeviceIdentity, DeviceKind, KINDS, fs, net, vsock};
use guest_protocol::module_list::{self, DIRECTORY, LIST};
use guest_protocol::run_spec::{RunSpec, Upper};
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
#[error(
    "kernel {kernel} has no virtio-mmio built in (CONFIG_VIRTIO_MMIO) and no modules beside it; --modules names their directory"
)]
struct NoDevicesError {
    kernel: PathBuf,
}

/// Finds the directory of the kernel's modules. A Linux kernel that cannot find its devices by itself needs one: PID 1 would
/// wait for the devices for ever.
pub(super) fn find(kernel: &mut Kernel, request: &Request) -> Result<(), Failure> {
    kernel.find_modules(request.modules.as_deref()).fails_as(EndReason::KernelError)?;
    let features = kernel.features();
    let finds_devices = features.has(Feature::MmioOnCommandLine) || features.has(Feature::MmioByAcpi);
    if features.release().is_some() && !finds_devices && kernel.modules().is_none() {
        return Err(NoDevicesError { kernel: kernel.path().to_owned() }).fails_as(EndReason::KernelError);
    }
    Ok(())
}

/// Reads the modules that a guest of `spec` needs, with a socket device or without.
pub(super) fn load(kernel: &Kernel, spec: &RunSpec, has_vsock: bool) -> Result<Vec<Module>, Failure> {
    match kernel.modules() {
        Some(modules) => modules.load(&wanted(spec, has_vsock)).fails_as(EndReason::KernelError),
        None => Ok(Vec::new()),
    }
}

fn wanted(spec: &RunSpec, has_vsock: bool) -> Vec<WantedModule<'_>> {
    let required = |name| WantedModule { name, required: true };
    let optional = |name| WantedModule { name, required: false };
    let mut wanted = vec![required("virtio_mmio")];
    let is_there = |kind: &&DeviceKind| {
        (**kind != net::KIND || !spec.interfaces.is_empty())
            && (**kind != vsock::KIND || has_vsock)
            && (**kind != fs::KIND || !spec.shares.is_empty() || spec.root.share.is_some())
    };
    for kind in KINDS.into_iter().filter(is_there) {
        wanted.push(WantedModule { name: kind.kernel_module, required: !kind.optional });
    }
    // The disk has one of several file systems, and only the guest finds out which.
    match &*spec.root.file_systems {
        [one] => wanted.push(required(one)),
        several => wanted.extend(several.iter().map(|name| optional(name))),
    }
    match spec.root.upper {
        Upper::None | Upper::InPlace => {}
        Upper::Tmpfs => wanted.push(required("overlay")),
        Upper::Disk(_) | Upper::Kept(_) => wanted.extend([required("overlay"), required("ext4")]),
    }
    wanted
}

/// PID 1, and the modules that it loads in their order.
pub(super) fn initramfs(init: &[u8], modules: &[Module]) -> Result<Vec<u8>, FileTooLarge> {
    let relative = |path: &str| path.trim_start_matches('/').to_owned();
    let mut initramfs = Initramfs::with_init(init)?;
    if !modules.is_empty() {
        initramfs = initramfs.directory(&relative(DIRECTORY), 0o755);
        for module in modules {
            let path = relative(&format!("{DIRECTORY}/{}.ko", module.name));
            initramfs = initramfs.file(&path, 0o644, &module.object)?;
        }
        let list = module_list::write(modules.iter().map(|module| (&*module.name, module.required)));
        initramfs = initramfs.file(&relative(LIST), 0o644, list.as_bytes())?;
    }
    Ok(initramfs.finish())
}

/// The drivers that a kernel has neither built in nor as a module, noted before it runs.
#[derive(Clone, Debug)]
pub(super) struct MissingDrivers {
    kinds: Vec<&'static DeviceKind>,
    description: HardwareDescription,
}

impl MissingDrivers {
    /// `None` if `kernel` is not a Linux kernel: nothing is known about others.
    pub(super) fn of(kernel: &Kernel) -> Option<Self> {
        kernel.features().release()?;
        let has = |module| {
            kernel.features().has_driver(module) || kernel.modules().is_some_and(|modules| modules.has(module))
        };
        let missing = KINDS.into_iter().filter(|kind| !kind.optional && !has(kind.kernel_module));
        Some(Self { kinds: missing.collect(), description: kernel.description() })
    }

    /// A line for the user of a guest that ended for `reason` and left `unclaimed` of its `devices` unused.
    pub(super) fn hint(&self, reason: EndReason, unclaimed: &[DeviceIdentity], devices: usize) -> Option<String> {
        // After any other reason PID 1 has printed what is wrong.
        let silent = matches!(reason, EndReason::Timeout | EndReason::GuestReset | EndReason::GuestPanic);
        if silent && unclaimed.len() == devices && self.description == HardwareDescription::Acpi {
            return Some(
                "the guest used none of its devices, which ACPI describes: Linux starts ACPI only with CONFIG_PCI"
                    .to_owned(),
            );
        }
        let missing = unclaimed.iter().filter(|device| self.kinds.contains(&device.kind));
        let named: Vec<String> =
            missing.map(|device| format!("{} ({})", device.name, device.kind.kernel_option)).collect();
        (!named.is_empty()).then(|| format!("the guest's kernel has no driver for: {}", named.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use devices::virtio::{block, console};

    fn device(kind: &'static DeviceKind, name: &str) -> DeviceIdentity {
        DeviceIdentity { kind, name: name.to_owned(), features: 0, queue_sizes: Vec::new(), counters: None }
    }

    #[test]
    fn hint_names_unclaimed_devices_without_a_driver() {
        let missing = MissingDrivers { kinds: vec![&block::KIND], description: HardwareDescription::CommandLine };
        let unclaimed = [device(&block::KIND, "block root"), device(&console::KIND, "console")];
        let expected = "the guest's kernel has no driver for: block root (CONFIG_VIRTIO_BLK)";
        assert_eq!(missing.hint(EndReason::HostError, &unclaimed, 3).as_deref(), Some(expected));
        assert_eq!(missing.hint(EndReason::Timeout, &unclaimed[1..], 3), None, "the kernel has that driver");
        assert_eq!(missing.hint(EndReason::Timeout, &[], 3), None);
    }

    #[test]
    fn hint_names_acpi_if_no_device_is_claimed() {
        let unclaimed = [device(&console::KIND, "console")];
        let missing = |description| MissingDrivers { kinds: Vec::new(), description };
        let hint = |description, reason| missing(description).hint(reason, &unclaimed, 1);
        assert!(hint(HardwareDescription::Acpi, EndReason::Timeout).unwrap().contains("CONFIG_PCI"));
        assert_eq!(hint(HardwareDescription::Acpi, EndReason::HostError), None, "PID 1 printed why");
        assert_eq!(hint(HardwareDescription::CommandLine, EndReason::Timeout), None, "it may have been stopped early");
    }
}
