// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The tables of `depmod`, parsed (modules.dep(5), modprobe.d(5)). Pure.
//!
//! A module's name is its file name up to the first `.ko`, with `_` for each `-`.

use memchr::memmem;
use std::collections::{BTreeMap, HashSet};
use std::path::{Component, Path, PathBuf};

/// A line of `modules.dep`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Relative to the directory of the table.
    pub(super) path: PathBuf,
    /// Names of modules to load before it, in this order.
    pub(super) needs: Vec<String>,
}

/// Parses `modules.dep`, by name. `None` if a line is malformed or names a file outside of the
/// directory.
pub(super) fn dependencies(table: &str) -> Option<BTreeMap<String, Entry>> {
    let entry = |line: &str| {
        let (path, needs) = line.split_once(':')?;
        let is_below = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
        // Indirect dependencies come later in the line, and must be loaded earlier.
        let needs = needs.split_whitespace().rev().map(name).collect::<Option<_>>()?;
        is_below.then_some((name(path)?, Entry { path: path.into(), needs }))
    };
    table.lines().map(entry).collect()
}

/// Parses `modules.builtin`: names.
pub(super) fn builtin(table: &str) -> HashSet<String> {
    table.lines().filter_map(name).collect()
}

/// Parses `modules.softdep`: by name, the modules to load before.
pub(super) fn soft_dependencies(table: &str) -> BTreeMap<String, Vec<String>> {
    let mut soft = BTreeMap::<String, Vec<String>>::new();
    for line in table.lines() {
        let mut words = line.split_whitespace();
        let (Some("softdep"), Some(module)) = (words.next(), words.next()) else { continue };
        let before = words.skip_while(|word| *word != "pre:").skip(1).take_while(|word| *word != "post:");
        soft.entry(normalise(module)).or_default().extend(before.map(normalise));
    }
    soft
}

/// Returns the modules with the alias `alias` in `modules.alias`.
pub(super) fn by_alias<'a>(table: &'a str, alias: &'a str) -> impl Iterator<Item = String> + 'a {
    table.lines().filter_map(move |line| {
        let mut words = line.split_whitespace();
        let (Some("alias"), Some(name), Some(module)) = (words.next(), words.next(), words.next()) else { return None };
        (normalise(name) == alias).then(|| normalise(module))
    })
}

/// Whether a built-in module has the alias `alias` in `modules.builtin.modinfo`.
pub(super) fn has_builtin_alias(table: &[u8], alias: &str) -> bool {
    let record = |alias: &str| memmem::find(table, format!(".alias={alias}\0").as_bytes()).is_some();
    record(alias) || record(&alias.replace('_', "-"))
}

/// Name of the module in the file at `path`.
fn name(path: &str) -> Option<String> {
    let file = path.rsplit('/').next()?;
    let (name, _) = file.split_once(".ko")?;
    (!name.is_empty()).then(|| normalise(name))
}

fn normalise(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_in_load_order() {
        let table = "kernel/net/virtio-net.ko.xz: kernel/net/net_failover.ko.xz kernel/net/failover.ko\nkernel/a.ko:\n";
        let found = dependencies(table).unwrap();
        let expected =
            Entry { path: "kernel/net/virtio-net.ko.xz".into(), needs: vec!["failover".into(), "net_failover".into()] };
        assert_eq!(found["virtio_net"], expected);
        assert_eq!(found["a"].needs, [""; 0]);
    }

    #[test]
    fn dependencies_reject_malformed_and_outside_paths() {
        for table in ["\x7fELF", "../../etc/x.ko:", "/etc/x.ko:", "kernel/x:", "kernel/x.ko: y"] {
            assert_eq!(dependencies(table), None, "{table:?}");
        }
    }

    #[test]
    fn soft_dependencies_are_the_pre_words_only() {
        let table = "# a comment\nsoftdep libcrc32c pre: crc32c\nsoftdep a post: x\nsoftdep b-c pre: d-e f post: g\n";
        let found = soft_dependencies(table);
        assert_eq!(found["libcrc32c"], ["crc32c"]);
        assert!(found["a"].is_empty());
        assert_eq!(found["b_c"], ["d_e", "f"]);
    }

    #[test]
    fn aliases_match_whole_names() {
        let table = "alias crc32c crc32c-intel\nalias acpi*:LNRO0005:* virtio_mmio\nalias crc32c crc32c_generic\n";
        assert_eq!(by_alias(table, "crc32c").collect::<Vec<_>>(), ["crc32c_intel", "crc32c_generic"]);
        assert_eq!(by_alias(table, "crc32").count(), 0);
        let builtin = b"crc32c_generic.alias=crypto-crc32c\0crc32c_generic.alias=crc32c\0";
        assert!(has_builtin_alias(builtin, "crc32c") && has_builtin_alias(builtin, "crypto_crc32c"));
        assert!(!has_builtin_alias(builtin, "crc32"));
    }
}
