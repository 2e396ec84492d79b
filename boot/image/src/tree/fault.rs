// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Why an entry of a layer is not taken. Pure.

use crate::limits;

/// What is wrong with an entry.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("it has no name")]
    NoName,
    /// `..` in its name.
    #[error("its name holds `..`")]
    DotDot,
    /// A name of more than 255 bytes.
    #[error("a name in it is longer than {} bytes", limits::NAME_BYTES)]
    NameTooLong,
    /// A path of more than 4095 bytes.
    #[error("its path or link target is longer than {} bytes", limits::PATH_BYTES)]
    PathTooLong,
    /// NUL in its name.
    #[error("its name or link target holds a NUL byte")]
    Nul,
    /// Too far from the root.
    #[error("it is nested deeper than {} directories", limits::DEPTH)]
    TooDeep,
    /// More than 40 symbolic links.
    #[error("its path leads through more than {} symbolic links", limits::SYMLINKS)]
    SymlinkLoop,
    /// A parent is a file.
    #[error("its parent `{0}` is not a directory")]
    ParentIsNoDirectory(String),
    /// The root as something else.
    #[error("the root must be a directory")]
    RootIsNoDirectory,
    /// A whiteout of nothing, of `.` or of `..`, or as a parent.
    #[error("it is a malformed whiteout")]
    Whiteout,
    /// A link to nothing.
    #[error("its link target is empty")]
    NoTarget,
    /// A hard link whose target is not in the image.
    #[error("it is a hard link to `{0}`, which does not exist")]
    TargetMissing(String),
    /// A hard link to a directory.
    #[error("it is a hard link to the directory `{0}`")]
    TargetIsDirectory(String),
    /// A number that Linux cannot encode.
    #[error("its device number is out of range")]
    Device,
    /// An attribute that Linux would not take.
    #[error("its extended attribute `{0}` is malformed or too large")]
    Xattr(String),
    /// Too much in one entry or in all.
    #[error("it has too many extended attributes")]
    TooManyXattrs,
    /// Too many entries in the image.
    #[error("the image has more than {} entries", limits::ENTRIES)]
    TooManyEntries,
    /// Long links or large whiteouts, many times.
    #[error("the image's links and whiteouts are too much work")]
    TooManySteps,
    /// Too many names in the image.
    #[error("the names in the image are too long in all")]
    TooManyNames,
    /// Too many extents in the image.
    #[error("the sparse files of the image have too many parts")]
    TooManyExtents,
}
