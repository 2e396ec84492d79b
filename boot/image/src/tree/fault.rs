// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Why an entry of a layer is rejected. Pure.

use crate::budget::OverBudget;
use crate::limits;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("it has no name")]
    NoName,
    #[error("its name contains `..`")]
    DotDot,
    #[error("a name in it is longer than {} bytes", limits::MAX_NAME_LENGTH)]
    NameTooLong,
    #[error("its path or link target is longer than {} bytes", limits::MAX_PATH_LENGTH)]
    PathTooLong,
    #[error("its name or link target contains a NUL byte")]
    Nul,
    #[error("it is nested deeper than {} directories", limits::MAX_DEPTH)]
    TooDeep,
    #[error("its path leads through more than {} symbolic links", limits::MAX_SYMLINKS)]
    SymlinkLoop,
    #[error("its parent `{0}` is not a directory")]
    ParentNotADirectory(String),
    #[error("the root must be a directory")]
    RootNotADirectory,
    /// It hides nothing, `.` or `..`, or is a parent.
    #[error("it is a malformed whiteout")]
    Whiteout,
    #[error("its link target is empty")]
    NoTarget,
    #[error("it is a hard link to `{0}`, which does not exist")]
    TargetMissing(String),
    #[error("it is a hard link to the directory `{0}`")]
    TargetIsDirectory(String),
    /// Linux cannot encode it.
    #[error("its device number is out of range")]
    Device,
    /// Linux would reject it.
    #[error("its extended attribute `{0}` is malformed or too large")]
    Xattr(String),
    #[error("it has too many extended attributes")]
    TooManyXattrs,
    #[error("the image has more than {} entries", limits::MAX_ENTRIES)]
    TooManyEntries,
    #[error("the image's links and whiteouts need more than {} steps", limits::MAX_STEPS)]
    TooManySteps,
    #[error(transparent)]
    Memory(#[from] OverBudget),
}
