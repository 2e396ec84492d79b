// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Directories of the host that coracle keeps things in, by the environment. Pure but for the two that look.

use std::path::{Path, PathBuf};

/// What of the environment decides.
#[derive(Clone, Debug, Default)]
pub(crate) struct Directories {
    /// `$XDG_CACHE_HOME`.
    pub(crate) cache_home: Option<PathBuf>,
    /// `$XDG_RUNTIME_DIR`.
    pub(crate) runtime: Option<PathBuf>,
    /// `$XDG_DATA_HOME`.
    pub(crate) data_home: Option<PathBuf>,
    /// `$HOME`.
    pub(crate) home: Option<PathBuf>,
    /// `$TMPDIR`.
    pub(crate) temporary: Option<PathBuf>,
    /// Effective user id.
    pub(crate) user: u32,
}

/// No folder for a purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DirectoryError {
    /// Of root disks and templates.
    #[error("no folder for the image cache: set XDG_CACHE_HOME or HOME")]
    Cache,
}

impl Directories {
    /// Reads the environment. Empty and relative values count as unset, as the XDG specification wants.
    #[must_use]
    pub(crate) fn from_environment() -> Self {
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        Self {
            cache_home: absolute("XDG_CACHE_HOME"),
            runtime: absolute("XDG_RUNTIME_DIR"),
            data_home: absolute("XDG_DATA_HOME"),
            home: absolute("HOME"),
            temporary: std::env::var_os("TMPDIR").filter(|path| !path.is_empty()).map(PathBuf::from),
            user: rustix::process::geteuid().as_raw(),
        }
    }

    /// What can be made anew: root disks, templates.
    ///
    /// # Errors
    /// The environment names no place.
    pub(crate) fn cache(&self) -> Result<PathBuf, DirectoryError> {
        let base = self.cache_home.clone().or_else(|| self.home.as_ref().map(|home| home.join(".cache")));
        base.map(|base| base.join("coracle")).ok_or(DirectoryError::Cache)
    }

    /// Entries of machines. A user without a session has one in the temporary folder, which must be his alone; whoever
    /// uses it checks that.
    #[must_use]
    pub(crate) fn run(&self) -> PathBuf {
        match (&self.runtime, self.user) {
            (Some(runtime), _) => runtime.join("coracle"),
            (None, 0) => "/run/coracle".into(),
            (None, user) => Path::new("/tmp").join(format!("coracle-{user}")),
        }
    }

    /// Large files that end with the process. Not `/tmp`, which is memory on many hosts.
    #[must_use]
    pub(crate) fn large_temporary(&self) -> PathBuf {
        self.temporary.clone().unwrap_or_else(|| "/var/tmp".into())
    }

    /// The user's own data.
    #[must_use]
    pub(crate) fn data(&self) -> Option<PathBuf> {
        let base = self.data_home.clone().or_else(|| self.home.as_ref().map(|home| home.join(".local/share")));
        base.map(|base| base.join("coracle"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Option<PathBuf> {
        Some(text.into())
    }

    #[test]
    fn the_specific_variable_counts_before_the_general_one() {
        let home = Directories { home: path("/h"), user: 7, ..Directories::default() };
        assert_eq!(home.cache(), Ok("/h/.cache/coracle".into()));
        assert_eq!(home.data(), path("/h/.local/share/coracle"));
        assert_eq!(home.run(), Path::new("/tmp/coracle-7"));
        let xdg = Directories { cache_home: path("/c"), data_home: path("/d"), runtime: path("/r"), ..home };
        assert_eq!(xdg.cache(), Ok("/c/coracle".into()));
        assert_eq!(xdg.data(), path("/d/coracle"));
        assert_eq!(xdg.run(), Path::new("/r/coracle"));
    }

    #[test]
    fn without_any_variable_only_the_cache_has_no_place() {
        let nothing = Directories::default();
        assert_eq!(nothing.cache(), Err(DirectoryError::Cache));
        assert_eq!(nothing.run(), Path::new("/run/coracle"), "root's");
        assert_eq!(nothing.large_temporary(), Path::new("/var/tmp"));
        assert_eq!(nothing.data(), None);
    }
}
