// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Firecracker: virtio-mmio, no API thread, a configuration file (Firecracker, docs/getting-started.md), coracle's kernel. It
//! passes devices to the kernel by `virtio_mmio.device=` on the command line, in front of PID 1's arguments (since 1.1.3, however
//! these look), and CPUs by the MP table. The serial port is its standard output. It does not wait for the reader: bytes that
//! find the pipe full are lost.

use super::Monitor;
use super::coracle::Coracle;
use super::guest::Guest;
use super::process::Process;
use super::roots::Roots;
use super::serial_guest::kernel_line;
use super::tap::Tap;
use anyhow::Result;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A reset through the keyboard controller ends the process with status 0. The other options in its documentation, `pci=off` and
/// `i8042.*`, are for drivers that this kernel does not have.
const KERNEL_WORDS: &str = " reboot=k";

pub(super) struct Firecracker<'a> {
    binary: PathBuf,
    kernel: PathBuf,
    roots: &'a Roots,
}

impl<'a> Firecracker<'a> {
    /// With the kernel and root disks of `coracle`.
    pub(super) fn new(binary: PathBuf, coracle: &Coracle, roots: &'a Roots) -> Firecracker<'a> {
        Firecracker { binary, kernel: coracle.beside("vmlinux"), roots }
    }
}

impl Monitor for Firecracker<'_> {
    fn name(&self) -> &'static str {
        "Firecracker"
    }

    fn by_serial_port(&self) -> bool {
        true
    }

    fn start(&self, guest: &Guest) -> Result<Process> {
        let directory = tempfile::tempdir()?;
        let document = document(&self.kernel, self.roots.disk(guest.image)?, guest)?;
        let configuration = directory.path().join("configuration.json");
        fs::write(&configuration, document.to_string())?;
        // Some versions do not create this file, and log to standard output without it.
        let log = directory.path().join(Process::LOG);
        fs::write(&log, "")?;
        let mut command = Command::new(&self.binary);
        command.arg("--no-api").arg("--config-file").arg(configuration);
        command.arg("--log-path").arg(log).args(["--level", "Error"]);
        Process::start(command, directory)
    }
}

/// Disks have Firecracker's defaults, which are its fastest here: with `Sync` a start is some 100 ms shorter than with `Async`
/// (Firecracker, docs/api_requests/block-io-engine.md), and `Unsafe` ignores flushes.
fn document(kernel: &Path, root: &Path, guest: &Guest) -> Result<Value> {
    let drive = |name: &str, path: &Path, is_root: bool| {
        json!({
            "drive_id": name,
            "path_on_host": path,
            "is_root_device": is_root,
            "is_read_only": is_root,
            "cache_type": "Unsafe",
            "io_engine": "Sync",
        })
    };
    let mut drives = vec![drive("root", root, true)];
    drives.extend(guest.disk.iter().map(|disk| drive("bench", disk, false)));
    let interfaces: Vec<Value> = guest
        .tap()
        .iter()
        .map(|tap| json!({ "iface_id": "net", "guest_mac": Tap::MAC_TEXT, "host_dev_name": tap.name }))
        .collect();
    Ok(json!({
        "boot-source": {
            "kernel_image_path": kernel,
            "boot_args": kernel_line(guest, KERNEL_WORDS, "reboot -f")?,
        },
        "drives": drives,
        "network-interfaces": interfaces,
        "machine-config": { "vcpu_count": 1, "mem_size_mib": guest.memory_mib },
    }))
}

#[cfg(test)]
mod tests {
    use super::document;
    use crate::bench::side_by_side::guest::Guest;
    use serde_json::json;
    use std::path::Path;

    #[test]
    fn root_is_the_first_drive_and_read_only() {
        let guest = Guest { disk: Some("/disk".into()), ..Guest::new("busybox", &["echo", "x"]) };
        let document = document(Path::new("/vmlinux"), Path::new("/root.erofs"), &guest).unwrap();
        assert_eq!(document["boot-source"]["kernel_image_path"], "/vmlinux");
        let words = document["boot-source"]["boot_args"].as_str().unwrap();
        assert!(words.starts_with("console=ttyS0 ") && words.contains(" reboot=k -- -c "), "{words}");
        assert!(words.ends_with("; reboot -f\""), "{words}");
        let of = |name: &str| {
            document["drives"].as_array().unwrap().iter().map(|drive| drive[name].clone()).collect::<Vec<_>>()
        };
        assert_eq!(of("path_on_host"), ["/root.erofs", "/disk"]);
        assert_eq!(of("is_root_device"), [true, false]);
        assert_eq!(of("is_read_only"), [true, false]);
        assert_eq!(document["machine-config"], json!({ "vcpu_count": 1, "mem_size_mib": 128 }));
    }
}
