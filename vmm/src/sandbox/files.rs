// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Landlock: the files that a thread can still open. Descriptors that are open are not affected.

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, NetPort, PathBeneath,
    RestrictionStatus, Ruleset, RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetError, RulesetStatus,
    Scope, make_bitflags,
};
use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, accessat, open};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// With the first version a rename between two directories of a share would fail.
const MIN_ABI: ABI = ABI::V2;
/// Rights of later versions are limited where the kernel knows them.
const MAX_ABI: ABI = ABI::V6;

/// What a thread can do below a directory, or with one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    /// Everything but executing files and controlling devices.
    Change,
    Read,
    ReadAndWrite,
    /// Create and replace regular files.
    Replace,
    RemoveFiles,
    RemoveDirectories,
}

impl Right {
    fn access(self) -> BitFlags<AccessFs> {
        match self {
            Self::Change => AccessFs::from_all(MAX_ABI) & !make_bitflags!(AccessFs::{Execute | IoctlDev}),
            Self::Read => make_bitflags!(AccessFs::{ReadFile | ReadDir}),
            Self::ReadAndWrite => make_bitflags!(AccessFs::{ReadFile | WriteFile}),
            Self::Replace => make_bitflags!(AccessFs::{WriteFile | Truncate | MakeReg | RemoveFile}),
            Self::RemoveFiles => make_bitflags!(AccessFs::{RemoveFile}),
            Self::RemoveDirectories => make_bitflags!(AccessFs::{RemoveDir}),
        }
    }
}

/// A right, and the directory or file that it is for.
#[derive(Debug)]
pub(crate) struct Grant {
    path: PathBuf,
    /// Keeps the inode, by which the kernel knows the rule.
    file: OwnedFd,
    right: Right,
}

impl Grant {
    /// # Errors
    /// `path` does not exist.
    pub(crate) fn new(path: &Path, right: Right) -> io::Result<Self> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        Ok(Self { path: path.to_owned(), file: open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?, right })
    }

    /// For an open directory.
    pub(crate) fn of(file: OwnedFd, right: Right) -> Self {
        Self { path: PathBuf::new(), file, right }
    }

    /// Whether the file system's own rights allow it to the calling thread, with the capabilities that it has now.
    pub(super) fn is_usable(&self) -> bool {
        let access = match self.right {
            Right::Read => Access::READ_OK,
            // The files in it decide.
            Right::ReadAndWrite if self.path.is_dir() => return true,
            _ => Access::WRITE_OK,
        };
        accessat(CWD, &self.path, access, AtFlags::EACCESS).is_ok()
    }
}

/// Whether the kernel has Landlock in a version that is enough.
pub(super) fn is_supported() -> bool {
    ruleset().is_ok()
}

fn ruleset() -> Result<RulesetCreated, RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(MIN_ABI))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(MAX_ABI))?
        .handle_access(AccessNet::from_all(MAX_ABI))?
        .scope(Scope::AbstractUnixSocket)?
        .create()
}

/// Limits the calling thread to `grants`; it can use no TCP but connect to `ports`, and no abstract socket of another process that it
/// is not connected to.
pub(super) fn restrict<'a>(grants: impl Iterator<Item = &'a Grant>, ports: &[u16]) -> Result<(), RulesetError> {
    let mut ruleset = ruleset()?;
    for Grant { file, right, .. } in grants {
        // A pipe or socket has no place in a file system; it needs no right.
        if let Ok(with) = ruleset.try_clone() {
            ruleset = with.add_rule(PathBeneath::new(file, right.access())).unwrap_or(ruleset);
        }
    }
    for &port in ports {
        ruleset = ruleset.add_rule(NetPort::new(port, AccessNet::ConnectTcp))?;
    }
    let RestrictionStatus { ruleset, .. } = ruleset.restrict_self()?;
    debug_assert_ne!(ruleset, RulesetStatus::NotEnforced);
    Ok(())
}
