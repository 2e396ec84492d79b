// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a kernel lacks, when a start came to nothing: devices that the guest never used, and the options that drive them.
//! Pure.

use crate::state::end::EndReason;
use boot::{Description, Feature, Kernel};

/// The kernel options that drive a device, what of each shows in an image, and the module that it becomes. A guest does without
/// a driver for the entropy device.
const DRIVERS: [(&str, Feature, &str); 3] = [
    ("CONFIG_VIRTIO_CONSOLE", Feature::VirtioConsole, "virtio_console"),
    ("CONFIG_VIRTIO_BLK", Feature::VirtioBlk, "virtio_blk"),
    ("CONFIG_VIRTIO_NET", Feature::VirtioNet, "virtio_net"),
];

/// What one kernel lacks, noted before it runs.
#[derive(Clone, Debug)]
pub(crate) struct Lacks {
    /// Options of drivers that are neither in the image nor among the modules.
    options: Vec<&'static str>,
    description: Description,
}

impl Lacks {
    /// Of `kernel`; `None` if it is no Linux, of which nothing is known.
    pub(crate) fn of(kernel: &Kernel) -> Option<Self> {
        kernel.features().release()?;
        let has = |feature, module| {
            kernel.features().has(feature) || kernel.modules().is_some_and(|modules| modules.has(module))
        };
        let lacking = DRIVERS.into_iter().filter(|(_, feature, module)| !has(*feature, module));
        Some(Self { options: lacking.map(|(option, ..)| option).collect(), description: kernel.description() })
    }

    /// A line for the user of a guest that left `unclaimed` of its `devices` unused, each with the option of its driver,
    /// and came to this end.
    pub(crate) fn hint(&self, reason: EndReason, unclaimed: &[(String, &str)], devices: usize) -> Option<String> {
        // Where PID 1 had a last word, that says it.
        let silent = matches!(reason, EndReason::Timeout | EndReason::GuestReset | EndReason::GuestPanic);
        if silent && unclaimed.len() == devices && self.description == Description::Acpi {
            return Some(
                "the guest used none of its devices, of which its kernel was told by ACPI: Linux's ACPI starts only with CONFIG_PCI"
                    .to_owned(),
            );
        }
        let lacking = unclaimed.iter().filter(|(_, option)| self.options.contains(option));
        let named: Vec<String> = lacking.map(|(device, option)| format!("{device} ({option})")).collect();
        (!named.is_empty()).then(|| format!("the guest's kernel has no driver for: {}", named.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_was_never_used_is_named_with_the_option_that_the_kernel_lacks() {
        let lacks = Lacks { options: vec!["CONFIG_VIRTIO_BLK"], description: Description::CommandLine };
        let unclaimed =
            [("block root".to_owned(), "CONFIG_VIRTIO_BLK"), ("console".to_owned(), "CONFIG_VIRTIO_CONSOLE")];
        let expected = "the guest's kernel has no driver for: block root (CONFIG_VIRTIO_BLK)";
        assert_eq!(lacks.hint(EndReason::HostError, &unclaimed, 3).as_deref(), Some(expected));
        assert_eq!(
            lacks.hint(EndReason::Timeout, &unclaimed[1..], 3),
            None,
            "it has that driver: something else went wrong"
        );
        assert_eq!(lacks.hint(EndReason::Timeout, &[], 3), None);
    }

    #[test]
    fn no_device_at_all_is_acpis_fault_where_acpi_describes_them() {
        let unclaimed = [("console".to_owned(), "CONFIG_VIRTIO_CONSOLE")];
        let lacks = |description| Lacks { options: Vec::new(), description };
        let hint = |description, reason| lacks(description).hint(reason, &unclaimed, 1);
        assert!(hint(Description::Acpi, EndReason::Timeout).unwrap().contains("CONFIG_PCI"));
        assert_eq!(hint(Description::Acpi, EndReason::HostError), None, "PID 1 said why");
        assert_eq!(hint(Description::CommandLine, EndReason::Timeout), None, "it may have been stopped early");
    }
}
