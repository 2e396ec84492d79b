// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One version of every rust-vmm crate in the lock file: two of them do not understand each other's types.

use crate::repository::root;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs;

const RUST_VMM: [&str; 14] = [
    "acpi_tables",
    "event-manager",
    "kvm-bindings",
    "kvm-ioctls",
    "linux-loader",
    "vfio-bindings",
    "vhost",
    "virtio-bindings",
    "virtio-queue",
    "virtio-vsock",
    "vm-allocator",
    "vm-memory",
    "vm-superio",
    "vmm-sys-util",
];

/// Crates that are there more than once.
pub(crate) fn check() -> Result<Vec<String>> {
    let lock = fs::read_to_string(root().join("Cargo.lock")).context("Cargo.lock")?;
    Ok(more_than_once(&lock))
}

fn more_than_once(lock: &str) -> Vec<String> {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in lock.split("[[package]]").skip(1) {
        let value = |key| package.lines().find_map(|line| line.strip_prefix(key)).map(|rest| rest.trim_matches('"'));
        if let (Some(name), Some(version)) = (value("name = "), value("version = ")) {
            versions.entry(name).or_default().push(version);
        }
    }
    let repeated = RUST_VMM.iter().filter_map(|name| versions.get(name).map(|found| (name, found)));
    repeated.filter(|(_, found)| found.len() > 1).map(|(name, found)| format!("{name}: {}", found.join(", "))).collect()
}

#[cfg(test)]
mod tests {
    use super::more_than_once;

    #[test]
    fn only_rust_vmm_crates_of_two_versions_are_findings() {
        let lock = "[[package]]\nname = \"vm-memory\"\nversion = \"0.17.0\"\n[[package]]\nname = \"vm-memory\"\n\
                    version = \"0.18.0\"\n[[package]]\nname = \"syn\"\nversion = \"1.0.0\"\n[[package]]\nname = \"syn\"\n\
                    version = \"2.0.0\"\n[[package]]\nname = \"kvm-ioctls\"\nversion = \"0.25.0\"\n";
        assert_eq!(more_than_once(lock), ["vm-memory: 0.17.0, 0.18.0"]);
    }
}
