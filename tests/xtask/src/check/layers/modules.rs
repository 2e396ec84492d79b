// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The modules of one crate, by their files, and which directory a path leads to.

use super::imports::{Import, imports};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// One file of the crate, relative to `src`.
#[derive(Debug)]
pub(super) struct SourceFile {
    pub(super) path: PathBuf,
    pub(super) imports: Vec<Import>,
}

impl SourceFile {
    /// Tests and what only they use, by name.
    pub(super) fn is_test(&self) -> bool {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        name == "tests.rs" || name.ends_with("_tests.rs") || self.path.iter().any(|directory| directory == "testing")
    }
}

#[derive(Debug, Default)]
pub(super) struct Modules {
    pub(super) files: Vec<SourceFile>,
    modules: BTreeSet<Vec<String>>,
    directories: BTreeSet<PathBuf>,
    exports: BTreeMap<(Vec<String>, String), Vec<String>>,
}

/// Following re-exports further than this is a circle of them.
const MAX_EXPORTS: usize = 16;

impl Modules {
    /// `files` are paths below `src` and their contents.
    pub(super) fn new(files: impl IntoIterator<Item = (PathBuf, String)>) -> Modules {
        let mut crate_modules = Modules::default();
        for (path, text) in files {
            let module = module_of(&path);
            let imports = imports(&text, &module);
            for import in &imports {
                if let Some(name) = &import.exported_as {
                    crate_modules.exports.insert((module.clone(), name.clone()), import.path.clone());
                }
            }
            crate_modules.modules.extend((0..=module.len()).map(|length| module[..length].to_vec()));
            crate_modules.directories.extend(path.parent().map(Path::to_owned));
            crate_modules.files.push(SourceFile { path, imports });
        }
        crate_modules
    }

    /// The directory whose module declares what `path` names, through re-exports; `None` if another crate does.
    pub(super) fn directory_of(&self, path: &[String]) -> Option<PathBuf> {
        let mut path = path.to_vec();
        for _ in 0..MAX_EXPORTS {
            let mut module: Vec<String> = Vec::new();
            let mut words = path.iter();
            let mut name = None;
            for word in words.by_ref() {
                let inner = [&module[..], std::slice::from_ref(word)].concat();
                if !self.modules.contains(&inner) {
                    name = Some(word);
                    break;
                }
                module = inner;
            }
            let exported = name.and_then(|name| self.exports.get(&(module.clone(), name.clone())));
            match exported {
                Some(target) if *target != path => path = target.iter().chain(words).cloned().collect(),
                _ => return self.declaring_directory(&module, name),
            }
        }
        None
    }

    fn declaring_directory(&self, module: &[String], name: Option<&String>) -> Option<PathBuf> {
        if module.is_empty() && name.is_some() {
            return None;
        }
        let directory: PathBuf = module.iter().collect();
        Some(if self.directories.contains(&directory) {
            directory
        } else {
            module[..module.len() - 1].iter().collect()
        })
    }
}

/// a/b.rs and a/b/mod.rs are the module `a::b`.
fn module_of(path: &Path) -> Vec<String> {
    let mut words: Vec<String> =
        path.with_extension("").iter().map(|word| word.to_string_lossy().into_owned()).collect();
    if words.last().is_some_and(|last| last == "mod") || words.len() == 1 && (words[0] == "lib" || words[0] == "main") {
        words.pop();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::Modules;

    #[test]
    fn re_exports_lead_to_the_directory_that_declares() {
        let file = |path: &str, text: &str| (path.into(), text.to_owned());
        let modules = Modules::new([
            file("lib.rs", "pub mod a; mod b;"),
            file("a/mod.rs", "mod c; pub use c::d::E; pub use super::b::F;"),
            file("a/c/mod.rs", ""),
            file("a/c/d.rs", ""),
            file("b.rs", ""),
        ]);
        let directory = |path: &str| {
            modules
                .directory_of(&path.split("::").map(str::to_owned).collect::<Vec<_>>())
                .map(|path| path.display().to_string())
        };
        assert_eq!(directory("a::E").as_deref(), Some("a/c"));
        assert_eq!(directory("a::E::new").as_deref(), Some("a/c"));
        assert_eq!(directory("a::F").as_deref(), Some(""));
        assert_eq!(directory("a::Other").as_deref(), Some("a"));
        assert_eq!(directory("a::c::d::X").as_deref(), Some("a/c"));
        assert_eq!(directory("std::fs"), None);
    }
}
