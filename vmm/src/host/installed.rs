// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Files that came with coracle, the guest kernel and PID 1: by option, by environment, beside the binary, in a data folder.

use super::directories::Directories;
use std::path::{Path, PathBuf};

/// One of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Installed {
    /// Its name in all of the folders.
    pub(crate) file: &'static str,
    /// What it is, for messages.
    pub(crate) what: &'static str,
    /// The option that names another.
    pub(crate) option: &'static str,
    /// The variable that does.
    pub(crate) variable: &'static str,
}

/// The guest's kernel.
pub(crate) const KERNEL: Installed =
    Installed { file: "vmlinux", what: "guest kernel", option: "--kernel", variable: "CORACLE_KERNEL" };
/// The guest's first program.
pub(crate) const INIT: Installed =
    Installed { file: "coracle-init", what: "PID 1", option: "--init-binary", variable: "CORACLE_INIT" };

/// A file is in none of its places.
#[derive(Debug, thiserror::Error)]
#[error("no {} ({}) in {}; {} or {} names one", installed.what, installed.file, list(places), installed.option, installed.variable)]
pub(crate) struct NotInstalledError {
    installed: Installed,
    places: Vec<PathBuf>,
}

fn list(places: &[PathBuf]) -> String {
    places.iter().map(|place| place.display().to_string()).collect::<Vec<_>>().join(", ")
}

impl Installed {
    /// Where it is. One that is named is not looked for: opening it tells what is wrong with it.
    ///
    /// # Errors
    /// It is in none of the folders.
    pub(crate) fn find(self, named: Option<&Path>, folders: &Directories) -> Result<PathBuf, NotInstalledError> {
        let by_environment = || std::env::var_os(self.variable).filter(|path| !path.is_empty()).map(PathBuf::from);
        if let Some(path) = named.map(Path::to_owned).or_else(by_environment) {
            return Ok(path);
        }
        // Through links: what came with the binary lies beside the file itself.
        let binary = std::env::current_exe().ok().and_then(|path| path.canonicalize().ok());
        self.find_in(places(binary.as_deref(), folders))
    }

    fn find_in(self, places: Vec<PathBuf>) -> Result<PathBuf, NotInstalledError> {
        let found = places.iter().map(|place| place.join(self.file)).find(|path| path.exists());
        found.ok_or(NotInstalledError { installed: self, places })
    }
}

fn places(binary: Option<&Path>, folders: &Directories) -> Vec<PathBuf> {
    let beside = binary.and_then(Path::parent);
    let shared = beside.and_then(Path::parent).map(|prefix| prefix.join("share/coracle"));
    let fixed = ["/usr/local/share/coracle", "/usr/share/coracle"].map(PathBuf::from);
    let mut places: Vec<PathBuf> = Vec::new();
    for place in beside.map(Path::to_owned).into_iter().chain(shared).chain(folders.data()).chain(fixed) {
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
    fn a_file_beside_the_binary_counts_before_those_in_data_folders() {
        let folder = tempfile::tempdir().unwrap();
        let (beside, shared) = (folder.path().join("bin"), folder.path().join("share/coracle"));
        for place in [&beside, &shared] {
            std::fs::create_dir_all(place).unwrap();
        }
        let all = || places(Some(&beside.join("coracle")), &Directories::default());
        std::fs::write(shared.join("vmlinux"), "").unwrap();
        assert_eq!(KERNEL.find_in(all()).unwrap(), shared.join("vmlinux"));
        std::fs::write(beside.join("vmlinux"), "").unwrap();
        assert_eq!(KERNEL.find_in(all()).unwrap(), beside.join("vmlinux"));
    }

    #[test]
    fn what_is_nowhere_is_reported_with_every_place() {
        let folders = Directories { home: Some("/nowhere/home".into()), ..Directories::default() };
        let places = places(Some(Path::new("/nowhere/bin/coracle")), &folders);
        let error = Installed { file: "no-such-file", ..KERNEL }.find_in(places).unwrap_err().to_string();
        for part in [
            "guest kernel",
            "no-such-file",
            "/nowhere/bin,",
            "/nowhere/share/coracle",
            "/nowhere/home/.local/share/coracle",
            "/usr/share/coracle",
            "--kernel",
            "CORACLE_KERNEL",
        ] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn a_named_file_is_taken_as_it_is() {
        let path = KERNEL.find(Some(Path::new("/nowhere/k")), &Directories::default()).unwrap();
        assert_eq!(path, Path::new("/nowhere/k"));
    }
}
