// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Monitors that Debian has no packages of: the environment names their binaries. Checked before anything is built or started.

use anyhow::{Context, Result, ensure};
use std::ffi::OsString;
use std::path::PathBuf;

const FIRECRACKER: &str = "BENCH_FIRECRACKER";
const CLOUD_HYPERVISOR: &str = "BENCH_CLOUD_HYPERVISOR";
const CLOUD_HYPERVISOR_KERNEL: &str = "BENCH_CLOUD_HYPERVISOR_KERNEL";

/// The monitors that are named. Their files exist.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Peers {
    pub(super) firecracker: Option<PathBuf>,
    pub(super) cloud_hypervisor: Option<CloudHypervisorFiles>,
}

/// Cloud Hypervisor has no virtio-mmio, so that it needs its own kernel.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CloudHypervisorFiles {
    pub(super) binary: PathBuf,
    pub(super) kernel: PathBuf,
}

impl Peers {
    pub(super) fn of_the_environment() -> Result<Peers> {
        Peers::named(|variable| std::env::var_os(variable))
    }

    fn named(variable: impl Fn(&str) -> Option<OsString>) -> Result<Peers> {
        let file = |name: &str| -> Result<Option<PathBuf>> {
            let path = variable(name).filter(|path| !path.is_empty()).map(PathBuf::from);
            if let Some(path) = &path {
                ensure!(path.is_file(), "{name}: {}: not a file", path.display());
            }
            Ok(path)
        };
        let with_kernel = |binary| -> Result<CloudHypervisorFiles> {
            let kernel = file(CLOUD_HYPERVISOR_KERNEL)?.with_context(|| {
                format!(
                    "{CLOUD_HYPERVISOR} needs {CLOUD_HYPERVISOR_KERNEL}: a vmlinux with ACPI, PCI, virtio-pci, virtio-blk, EROFS \
                     and an 8250 serial port built in, because its devices are on PCI, which coracle's kernel does not have"
                )
            })?;
            Ok(CloudHypervisorFiles { binary, kernel })
        };
        Ok(Peers {
            firecracker: file(FIRECRACKER)?,
            cloud_hypervisor: file(CLOUD_HYPERVISOR)?.map(with_kernel).transpose()?,
        })
    }

    /// All files, each with the variable that names it.
    pub(super) fn files(self) -> Vec<(&'static str, PathBuf)> {
        let mut files = Vec::new();
        files.extend(self.firecracker.map(|binary| (FIRECRACKER, binary)));
        if let Some(CloudHypervisorFiles { binary, kernel }) = self.cloud_hypervisor {
            files.extend([(CLOUD_HYPERVISOR, binary), (CLOUD_HYPERVISOR_KERNEL, kernel)]);
        }
        files
    }
}

#[cfg(test)]
mod tests {
    use super::Peers;
    use std::path::PathBuf;

    fn named(environment: &[(&str, &str)]) -> Result<Peers, String> {
        let value = |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        Peers::named(value).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn files_keep_the_variables_that_name_them() {
        let here = env!("CARGO_MANIFEST_DIR").to_owned() + "/Cargo.toml";
        let all = [
            ("BENCH_FIRECRACKER", &*here),
            ("BENCH_CLOUD_HYPERVISOR", &here),
            ("BENCH_CLOUD_HYPERVISOR_KERNEL", &here),
        ];
        let expected: Vec<_> = all.iter().map(|(name, path)| (*name, PathBuf::from(path))).collect();
        assert_eq!(named(&all).unwrap().files(), expected);
        assert_eq!(named(&[("BENCH_FIRECRACKER", "")]).unwrap(), Peers::default());
    }

    #[test]
    fn missing_file_is_named_in_one_line() {
        let error = named(&[("BENCH_FIRECRACKER", "/nowhere/firecracker")]).unwrap_err();
        assert_eq!(error, "BENCH_FIRECRACKER: /nowhere/firecracker: not a file");
        let error = named(&[("BENCH_CLOUD_HYPERVISOR", env!("CARGO_MANIFEST_DIR"))]).unwrap_err();
        assert!(error.ends_with("not a file"), "{error}");
        let binary = env!("CARGO_MANIFEST_DIR").to_owned() + "/Cargo.toml";
        let error = named(&[("BENCH_CLOUD_HYPERVISOR", &binary)]).unwrap_err();
        assert!(error.starts_with("BENCH_CLOUD_HYPERVISOR needs BENCH_CLOUD_HYPERVISOR_KERNEL: "), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}
