// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The files that are installed with coracle, guest kernel and PID 1: by option, by environment, beside the binary, in a data
//! directory.

use super::directories::Directories;
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Installed {
    /// File name in each directory.
    pub(crate) file: &'static str,
    /// The name of the file in messages.
    pub(crate) what: &'static str,
    /// Option that names another file.
    pub(crate) option: &'static str,
    /// Environment variable that names another file.
    pub(crate) variable: &'static str,
}

pub(crate) const KERNEL: Installed =
    Installed { file: "vmlinux", what: "guest kernel", option: "--kernel", variable: "CORACLE_KERNEL" };
pub(crate) const INIT: Installed =
    Installed { file: "coracle-init", what: "PID 1", option: "--init-binary", variable: "CORACLE_INIT" };

#[derive(Debug, thiserror::Error)]
#[error("no {} ({}) in {}; name one with {} or {}", installed.what, installed.file, list(places), installed.option, installed.variable)]
pub(crate) struct NotInstalledError {
    installed: Installed,
    places: Vec<PathBuf>,
}

fn list(places: &[PathBuf]) -> String {
    places.iter().map(|place| place.display().to_string()).collect::<Vec<_>>().join(", ")
}

impl Installed {
    /// Path of the file. A `named` file is not looked for: opening it will report the error.
    ///
    /// # Errors
    /// It is in none of the directories.
    pub(crate) fn find(self, named: Option<&Path>, directories: &Directories) -> Result<PathBuf, NotInstalledError> {
        let from_environment = || std::env::var_os(self.variable).filter(|path| !path.is_empty()).map(PathBuf::from);
        if let Some(path) = named.map(Path::to_owned).or_else(from_environment) {
            return Ok(path);
        }
        // Symbolic links are followed: the files are beside the binary itself.
        let binary = std::env::current_exe().ok().and_then(|path| path.canonicalize().ok());
        self.find_in(places(binary.as_deref(), directories))
    }

    fn find_in(self, places: Vec<PathBuf>) -> Result<PathBuf, NotInstalledError> {
        let found = places.iter().map(|place| place.join(self.file)).find(|path| path.exists());
        found.ok_or(NotInstalledError { installed: self, places })
    }
}

fn places(binary: Option<&Path>, directories: &Directories) -> Vec<PathBuf> {
    let beside = binary.and_then(Path::parent);
    let installed = beside.and_then(Path::parent).map(|prefix| prefix.join("lib/coracle"));
    let fixed = ["/usr/local/lib/coracle", "/usr/lib/coracle"].map(PathBuf::from);
    let mut places: Vec<PathBuf> = Vec::new();
    for place in beside.map(Path::to_owned).into_iter().chain(installed).chain(directories.data()).chain(fixed) {
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn find_prefers_the_file_beside_the_binary() {
        let directory = tempfile::tempdir().unwrap();
        let (beside, installed) = (directory.path().join("bin"), directory.path().join("lib/coracle"));
        for place in [&beside, &installed] {
            std::fs::create_dir_all(place).unwrap();
        }
        let all = || places(Some(&beside.join("coracle")), &Directories::default());
        std::fs::write(installed.join("vmlinux"), "").unwrap();
        assert_eq!(KERNEL.find_in(all()).unwrap(), installed.join("vmlinux"));
        std::fs::write(beside.join("vmlinux"), "").unwrap();
        assert_eq!(KERNEL.find_in(all()).unwrap(), beside.join("vmlinux"));
    }

    #[test]
    fn a_missing_file_is_reported_with_every_directory() {
        let directories = Directories { home: Some("/nowhere/home".into()), ..Directories::default() };
        let places = places(Some(Path::new("/nowhere/bin/coracle")), &directories);
        let error = Installed { file: "no-such-file", ..KERNEL }.find_in(places).unwrap_err().to_string();
        for part in [
            "guest kernel",
            "no-such-file",
            "/nowhere/bin,",
            "/nowhere/lib/coracle",
            "/nowhere/home/.local/share/coracle",
            "/usr/lib/coracle",
            "--kernel",
            "CORACLE_KERNEL",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn find_takes_a_named_file_as_it_is() {
        let path = KERNEL.find(Some(Path::new("/nowhere/k")), &Directories::default()).unwrap();
        assert_eq!(path, Path::new("/nowhere/k"));
    }
}
