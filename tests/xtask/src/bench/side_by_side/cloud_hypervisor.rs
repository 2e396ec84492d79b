// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Cloud Hypervisor: PVH entry, virtio-pci, ACPI (its README, "Custom Kernel and Disk Image"). Its devices are
//! on PCI, so that it needs another kernel than coracle's, which the environment names. Its virtio-console is off and the serial
//! port is its standard output. Disks have its defaults: io_uring and the host's page cache.

use super::Monitor;
use super::guest::Guest;
use super::process::Process;
use super::roots::Roots;
use super::serial_guest::kernel_line;
use super::tap::Tap;
use crate::bench::peers::CloudHypervisorFiles;
use anyhow::Result;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

pub(super) struct CloudHypervisor<'a> {
    files: CloudHypervisorFiles,
    roots: &'a Roots,
}

impl<'a> CloudHypervisor<'a> {
    /// With its own kernel and the root disks of Coracle.
    pub(super) fn new(files: CloudHypervisorFiles, roots: &'a Roots) -> CloudHypervisor<'a> {
        CloudHypervisor { files, roots }
    }
}

impl Monitor for CloudHypervisor<'_> {
    fn name(&self) -> &'static str {
        "Cloud Hypervisor"
    }

    fn by_serial_port(&self) -> bool {
        true
    }

    fn start(&self, guest: &Guest) -> Result<Process> {
        let directory = tempfile::tempdir()?;
        let mut command = Command::new(&self.files.binary);
        command.args(arguments(&self.files.kernel, self.roots.disk(guest.image)?, guest)?);
        command.arg("--log-file").arg(directory.path().join(Process::LOG));
        Process::start(command, directory)
    }
}

/// A guest that powers off by ACPI ends the process with status 0; one that resets starts again.
fn arguments(kernel: &Path, root: &Path, guest: &Guest) -> Result<Vec<OsString>> {
    let memory = format!("size={}M", guest.memory_mib);
    let line = kernel_line(guest, "", "poweroff -f")?;
    let mut words: Vec<OsString> = vec!["--kernel".into(), kernel.into(), "--cmdline".into(), line.into()];
    words.extend(
        ["--cpus", "boot=1", "--memory", &memory, "--console", "off", "--serial", "tty", "--disk"].map(Into::into),
    );
    words.push(disk(root, ",readonly=on"));
    words.extend(guest.disk.iter().map(|path| disk(path, "")));
    if let Some(tap) = guest.tap() {
        words.extend(["--net".into(), format!("tap={},mac={}", tap.name, Tap::MAC_TEXT).into()]);
    }
    Ok(words)
}

fn disk(path: &Path, more: &str) -> OsString {
    format!("path={}{more}", path.display()).into()
}

#[cfg(test)]
mod tests {
    use super::arguments;
    use crate::bench::side_by_side::guest::Guest;
    use std::path::Path;

    #[test]
    fn root_is_the_first_value_of_the_disk_option() {
        let guest = Guest { disk: Some("/disk".into()), ..Guest::new("busybox", &["echo", "x"]) };
        let words = arguments(Path::new("/vmlinux"), Path::new("/root.erofs"), &guest).unwrap();
        let words: Vec<&str> = words.iter().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(words[..3], ["--kernel", "/vmlinux", "--cmdline"]);
        assert!(words[3].starts_with("console=ttyS0 ") && words[3].ends_with("; poweroff -f\""), "{}", words[3]);
        let rest = "--cpus boot=1 --memory size=128M --console off --serial tty --disk path=/root.erofs,readonly=on path=/disk";
        assert_eq!(words[4..].join(" "), rest);
    }
}
