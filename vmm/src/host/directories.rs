// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The directories that coracle uses on the host, by the environment (XDG base directories) and, without HOME, by the user.

use std::fs;
use std::path::{Path, PathBuf};

/// Where an OCI runtime mounts what coracle needs in a container.
pub(crate) const IN_CONTAINER: &str = "/dev/.coracle";

/// What decides about the directories.
#[derive(Clone, Debug, Default)]
pub(crate) struct Directories {
    /// `$XDG_CACHE_HOME`.
    pub(crate) cache_home: Option<PathBuf>,
    /// `$XDG_RUNTIME_DIR`.
    pub(crate) runtime: Option<PathBuf>,
    /// `$XDG_DATA_HOME`.
    pub(crate) data_home: Option<PathBuf>,
    /// `$HOME`, or the passwd entry's of a user other than root.
    pub(crate) home: Option<PathBuf>,
    /// `$TMPDIR`.
    pub(crate) temporary: Option<PathBuf>,
    /// Effective user ID.
    pub(crate) user: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DirectoryError {
    #[error("no directory for the image cache: user {0} has no home directory; set XDG_CACHE_HOME or HOME")]
    Cache(u32),
    #[error("no directory for the image store: user {0} has no home directory; set XDG_DATA_HOME or HOME")]
    Images(u32),
    #[error("no directory for volumes: user {0} has no home directory; set XDG_DATA_HOME or HOME")]
    Volumes(u32),
    #[error("no directory for kept machines: user {0} has no home directory; set XDG_DATA_HOME or HOME")]
    Machines(u32),
    #[error("no directory for snapshots: user {0} has no home directory; set XDG_DATA_HOME or HOME")]
    Snapshots(u32),
}

impl Directories {
    /// Reads the environment. Empty and relative values count as unset, as the XDG specification requires.
    #[must_use]
    pub(crate) fn from_environment() -> Self {
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let user = rustix::process::geteuid().as_raw();
        // A system service has no HOME. Root's home is not for services.
        let passwd_home = || (user != 0).then(|| home_in(&fs::read("/etc/passwd").unwrap_or_default(), user)).flatten();
        Self {
            cache_home: absolute("XDG_CACHE_HOME"),
            runtime: absolute("XDG_RUNTIME_DIR"),
            data_home: absolute("XDG_DATA_HOME"),
            home: absolute("HOME").or_else(passwd_home),
            temporary: std::env::var_os("TMPDIR").filter(|path| !path.is_empty()).map(PathBuf::from),
            user,
        }
    }

    /// Root disks, kernels and templates, all of which can be created again.
    ///
    /// # Errors
    /// There is no home directory, and the user is not root.
    pub(crate) fn cache(&self) -> Result<PathBuf, DirectoryError> {
        let home = || self.home.as_ref().map(|home| home.join(".cache"));
        let system = || (self.user == 0).then(|| "/var/cache".into());
        let base = self.cache_home.clone().or_else(home).or_else(system);
        base.map(|base| base.join("coracle")).ok_or(DirectoryError::Cache(self.user))
    }

    /// Base of the run directories. A user without a session has one in `/tmp`, where its owner has to be checked before it is
    /// used.
    #[must_use]
    pub(crate) fn run(&self) -> PathBuf {
        match (&self.runtime, self.user) {
            (Some(runtime), _) => runtime.join("coracle"),
            (None, 0) => "/run/coracle".into(),
            (None, user) => Path::new("/tmp").join(format!("coracle-{user}")),
        }
    }

    /// Large files that end with the process. Not `/tmp`, which is in memory on many hosts.
    #[must_use]
    pub(crate) fn large_temporary(&self) -> PathBuf {
        self.temporary.clone().unwrap_or_else(|| "/var/tmp".into())
    }

    /// The store of images.
    ///
    /// # Errors
    /// There is no home directory, and the user is not root.
    pub(crate) fn images(&self) -> Result<PathBuf, DirectoryError> {
        self.lasting().map(|base| base.join("images")).ok_or(DirectoryError::Images(self.user))
    }

    /// The volumes.
    ///
    /// # Errors
    /// There is no home directory, and the user is not root.
    pub(crate) fn volumes(&self) -> Result<PathBuf, DirectoryError> {
        self.lasting().map(|base| base.join("volumes")).ok_or(DirectoryError::Volumes(self.user))
    }

    /// The snapshots that have a name.
    ///
    /// # Errors
    /// There is no home directory, and the user is not root.
    pub(crate) fn snapshots(&self) -> Result<PathBuf, DirectoryError> {
        self.lasting().map(|base| base.join("snapshots")).ok_or(DirectoryError::Snapshots(self.user))
    }

    /// What is kept of the machines whose run directories are below `base`: with the user's data, or, for a base that the user
    /// chose, in it. A machine's name begins with no dot.
    ///
    /// # Errors
    /// There is no home directory, and the user is not root.
    pub(crate) fn machines(&self, base: &Path) -> Result<PathBuf, DirectoryError> {
        if base != self.run() {
            return Ok(base.join(".machines"));
        }
        self.lasting().map(|base| base.join("machines")).ok_or(DirectoryError::Machines(self.user))
    }

    /// Base of what a user keeps.
    fn lasting(&self) -> Option<PathBuf> {
        let system = || (self.user == 0).then(|| PathBuf::from("/var/lib/coracle"));
        self.data().or_else(system)
    }

    #[must_use]
    pub(crate) fn data(&self) -> Option<PathBuf> {
        let base = self.data_home.clone().or_else(|| self.home.as_ref().map(|home| home.join(".local/share")));
        base.map(|base| base.join("coracle"))
    }
}

/// The home directory of `user` in the text of passwd(5). The C library's look-up would need its plug-ins, which a static binary cannot
/// load.
fn home_in(passwd: &[u8], user: u32) -> Option<PathBuf> {
    String::from_utf8_lossy(passwd).lines().find_map(|line| {
        let mut fields = line.split(':').skip(2);
        let id = fields.next()?.parse::<u32>().ok()?;
        let home = Path::new(fields.nth(2)?);
        (id == user && home.is_absolute()).then(|| home.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Option<PathBuf> {
        Some(text.into())
    }

    #[test]
    fn xdg_variables_come_before_home() {
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
    fn without_variables_root_uses_the_systems_directories() {
        let root = Directories::default();
        assert_eq!(root.cache(), Ok("/var/cache/coracle".into()));
        assert_eq!(root.run(), Path::new("/run/coracle"));
        assert_eq!(root.large_temporary(), Path::new("/var/tmp"));
        assert_eq!((root.data(), root.images()), (None, Ok("/var/lib/coracle/images".into())));
    }

    #[test]
    fn without_a_home_a_user_has_no_cache() {
        let user = Directories { user: 7, ..Directories::default() };
        assert_eq!(user.cache(), Err(DirectoryError::Cache(7)));
        assert_eq!(user.images(), Err(DirectoryError::Images(7)));
    }

    #[test]
    fn home_is_found_in_passwd_by_user_id() {
        let passwd = b"root:x:0:0:root:/root:/bin/sh\n# a comment\nshort:x\nsvc:x:990:990:A \xff service:/var/lib/svc:/bin/false\n\
                       odd:x:991:991::relative:/bin/sh\n";
        assert_eq!(home_in(passwd, 990), path("/var/lib/svc"));
        assert_eq!(home_in(passwd, 0), path("/root"));
        assert_eq!((home_in(passwd, 991), home_in(passwd, 5), home_in(b"", 0)), (None, None, None));
    }
}
