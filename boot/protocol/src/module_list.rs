// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Kernel modules in the initramfs: where PID 1 finds them, and in which order it loads them.
//!
//! The list has one line per module: its name, with a leading `-` if the guest works without it.

use alloc::string::String;
use core::fmt::Write as _;

/// Directory of the modules, each in a file `NAME.ko`.
pub const DIRECTORY: &str = "/modules";
/// Path of the list.
pub const LIST: &str = "/modules/list";

/// Formats the list. Each module has a name and whether the guest requires it.
#[must_use]
pub fn write<'a>(modules: impl IntoIterator<Item = (&'a str, bool)>) -> String {
    let mut list = String::new();
    for (name, required) in modules {
        let mark = if required { "" } else { "-" };
        // Writing to a string cannot fail.
        let _ = writeln!(list, "{mark}{name}");
    }
    list
}

/// Parses the output of [`write`].
pub fn read(list: &str) -> impl Iterator<Item = (&str, bool)> {
    list.lines().map(|line| match line.strip_prefix('-') {
        Some(name) => (name, false),
        None => (line, true),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn module_list_survives_a_round_trip() {
        let modules = [("virtio_mmio", true), ("virtio_rng", false), ("erofs", true)];
        assert_eq!(write(modules), "virtio_mmio\n-virtio_rng\nerofs\n");
        assert_eq!(read(&write(modules)).collect::<Vec<_>>(), modules);
        assert_eq!(read("").count(), 0);
    }
}
