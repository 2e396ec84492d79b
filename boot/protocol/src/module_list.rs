// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The kernel modules that the initramfs brings along: where PID 1 finds them, and in which order it loads them. Pure.
//!
//! The list has a line for each: its name, after a `-` if the guest can do without it.

use alloc::string::String;
use core::fmt::Write as _;

/// Folder of the modules, each in a file `NAME.ko`.
pub const FOLDER: &str = "/modules";
/// The list.
pub const LIST: &str = "/modules/list";

/// The list of modules, each with its name and whether the guest cannot do without it.
#[must_use]
pub fn write<'a>(modules: impl IntoIterator<Item = (&'a str, bool)>) -> String {
    let mut list = String::new();
    for (name, required) in modules {
        let mark = if required { "" } else { "-" };
        // A string takes all that is written to it.
        let _ = writeln!(list, "{mark}{name}");
    }
    list
}

/// What [`write`] wrote.
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
    fn a_list_is_read_as_it_was_written() {
        let modules = [("virtio_mmio", true), ("virtio_rng", false), ("erofs", true)];
        assert_eq!(write(modules), "virtio_mmio\n-virtio_rng\nerofs\n");
        assert_eq!(read(&write(modules)).collect::<Vec<_>>(), modules);
        assert_eq!(read("").count(), 0);
    }
}
