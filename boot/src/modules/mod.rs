// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A kernel's modules: which files a driver needs, in which order, and their contents. Runs on the
//! thread that opens a kernel; reads the tables that `depmod` writes, and the requested modules.
//!
//! | file | holds |
//! |---|---|
//! | `modules.dep` | each module's file, and those that must be loaded before it |
//! | `modules.builtin` | modules that are built in |
//! | `modules.softdep` | optional dependencies, by name or alias |
//! | `modules.alias`, `modules.builtin.modinfo` | aliases |

mod table;

use crate::compression::{Compression, UnpackError};
use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Bound for a table of `depmod` and for a module: several times that of a distribution.
const MAX_FILE_SIZE: u64 = 64 << 20;
/// Modules that one machine loads.
const MAX_MODULES: usize = 64;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModulesError {
    #[error("--modules {path}: no modules.dep of kernel {release} in it or in its lib/modules/{release}")]
    NotFound { path: PathBuf, release: String },
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    /// It is not text, or names files outside of its directory.
    #[error("{path} is not a table of depmod")]
    Table { path: PathBuf },
    #[error("kernel {release} has no {name}: it is neither built in nor in {directory}")]
    Missing { release: String, name: String, directory: PathBuf },
    #[error("cannot unpack module {path}")]
    Unpack { path: PathBuf, source: UnpackError },
    #[error("{path} is not a kernel module")]
    NotAModule { path: PathBuf },
    #[error("{directory}: more than {MAX_MODULES} modules to load")]
    TooMany { directory: PathBuf },
}

/// A driver or file system that a guest needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedModule<'a> {
    /// As `lsmod` shows it.
    pub name: &'a str,
    /// Without it the guest cannot start.
    pub required: bool,
}

/// A module to load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// As `lsmod` shows it.
    pub name: String,
    /// The ELF object, unpacked.
    pub object: Vec<u8>,
    /// Without it the guest cannot start.
    pub required: bool,
}

/// The modules of one kernel.
#[derive(Clone, Debug)]
pub struct ModuleTree {
    directory: PathBuf,
    release: String,
    files: BTreeMap<String, table::Entry>,
    builtin: HashSet<String>,
}

impl ModuleTree {
    /// Finds the modules of the kernel at `kernel` with `release`: in `named` (`--modules`), else
    /// beside the kernel, where there may be none.
    pub fn find(kernel: &Path, release: &str, named: Option<&Path>) -> Result<Option<Self>, ModulesError> {
        let places = match named {
            Some(path) => vec![path.to_owned(), path.join("lib/modules").join(release), path.join(release)],
            None => beside(kernel).map(|directory| directory.join("lib/modules").join(release)).collect(),
        };
        match (places.into_iter().find(|place| place.join("modules.dep").is_file()), named) {
            (Some(directory), _) => Self::open(directory, release).map(Some),
            (None, Some(path)) => Err(ModulesError::NotFound { path: path.to_owned(), release: release.to_owned() }),
            (None, None) => Ok(None),
        }
    }

    fn open(directory: PathBuf, release: &str) -> Result<Self, ModulesError> {
        let path = directory.join("modules.dep");
        let files = table::dependencies(&read_text(&path)?).ok_or(ModulesError::Table { path })?;
        // A kernel with all drivers as modules has no such list.
        let builtin = table::builtin(&read_text_if_exists(&directory.join("modules.builtin"))?);
        Ok(Self { directory, release: release.to_owned(), files, builtin })
    }

    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether the kernel has `name`, as a module or built in.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.files.contains_key(name) || self.builtin.contains(name)
    }

    /// Returns the modules to load for `wanted`, in this order, each once.
    pub fn load(&self, wanted: &[WantedModule<'_>]) -> Result<Vec<Module>, ModulesError> {
        let mut order =
            LoadOrder { tree: self, soft: self.soft_dependencies()?, names: Vec::new(), visited: HashSet::new() };
        for wanted in wanted {
            if !self.has(wanted.name) && wanted.required {
                let (release, name) = (self.release.clone(), wanted.name.to_owned());
                return Err(ModulesError::Missing { release, name, directory: self.directory.clone() });
            }
            order.add(wanted.name, wanted.required)?;
        }
        order.names.into_iter().map(|(name, required)| self.read(name, required)).collect()
    }

    /// Returns the optional dependencies of each module, by names of existing modules.
    fn soft_dependencies(&self) -> Result<BTreeMap<String, Vec<String>>, ModulesError> {
        let mut soft = table::soft_dependencies(&read_text_if_exists(&self.directory.join("modules.softdep"))?);
        let alias = read_text_if_exists(&self.directory.join("modules.alias"))?;
        let builtin = read_if_exists(&self.directory.join("modules.builtin.modinfo"))?;
        for names in soft.values_mut() {
            let by_alias = |name: &String| {
                if self.has(name) || table::has_builtin_alias(&builtin, name) {
                    return Some(name.clone());
                }
                table::by_alias(&alias, name).find(|module| self.has(module))
            };
            *names = names.iter().filter_map(by_alias).collect();
        }
        Ok(soft)
    }

    fn read(&self, name: &str, required: bool) -> Result<Module, ModulesError> {
        let path = self.directory.join(&self.files[name].path);
        let bytes = read(&path)?;
        let object = match Compression::recognise(&bytes) {
            None => bytes,
            Some(Err(_)) => return Err(ModulesError::NotAModule { path }),
            Some(Ok(compression)) => {
                let mut object = Vec::new();
                let unpacked = compression.unpack(bytes.as_slice(), MAX_FILE_SIZE, &mut object);
                unpacked.map_err(|source| ModulesError::Unpack { path: path.clone(), source })?;
                object
            }
        };
        if !object.starts_with(b"\x7fELF") {
            return Err(ModulesError::NotAModule { path });
        }
        Ok(Module { name: name.to_owned(), object, required })
    }
}

/// Directories that may contain `lib/modules` of the kernel at `kernel`: its own, and for one in
/// `/boot` the root.
fn beside(kernel: &Path) -> impl Iterator<Item = &Path> {
    kernel.ancestors().skip(1).take(2)
}

/// Collects modules in load order.
struct LoadOrder<'a> {
    tree: &'a ModuleTree,
    soft: BTreeMap<String, Vec<String>>,
    names: Vec<(&'a str, bool)>,
    visited: HashSet<&'a str>,
}

impl<'a> LoadOrder<'a> {
    /// Adds the dependencies of `name`, then `name` itself if it is a module. A cycle ends at the
    /// first repetition.
    fn add(&mut self, name: &str, required: bool) -> Result<(), ModulesError> {
        let Some((name, entry)) = self.tree.files.get_key_value(name) else { return Ok(()) };
        if !self.visited.insert(name) {
            return Ok(());
        }
        if self.visited.len() > MAX_MODULES {
            return Err(ModulesError::TooMany { directory: self.tree.directory.clone() });
        }
        for soft in self.soft.get(name).cloned().unwrap_or_default() {
            self.add(&soft, false)?;
        }
        for dependency in &entry.needs {
            self.add(dependency, required)?;
        }
        self.names.push((name, required));
        Ok(())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ModulesError> {
    let fail = |source| ModulesError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(fail)?;
    file.take(MAX_FILE_SIZE).read_to_end(&mut bytes).map_err(fail)?;
    Ok(bytes)
}

fn read_if_exists(path: &Path) -> Result<Vec<u8>, ModulesError> {
    match fs::exists(path) {
        Ok(false) => Ok(Vec::new()),
        _ => read(path),
    }
}

fn read_text(path: &Path) -> Result<String, ModulesError> {
    String::from_utf8(read(path)?).map_err(|_| ModulesError::Table { path: path.to_owned() })
}

fn read_text_if_exists(path: &Path) -> Result<String, ModulesError> {
    String::from_utf8(read_if_exists(path)?).map_err(|_| ModulesError::Table { path: path.to_owned() })
}

#[cfg(test)]
#[path = "modules_tests.rs"]
mod tests;
