// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Files that are written into a running microVM (`coracle cp`). They are the standard input of a
//! process beside the workload that PID 1 starts in the workload's namespaces, and that executes
//! nothing of the image. The host reads archives of any format; what arrives here has one form.
//!
//! ```text
//!  Begin, then for each file File, and of a regular one any number of Data and Hole; End
//! ```
//!
//! Each message is a frame as on the control port, see [`encode`](crate::protocol::encode). A
//! directory comes before what is in it. An input without `End` was cut, and is a failure. The
//! process ends with status 0, or writes one [`WriteFailure`] to its standard output and ends with
//! another.

use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Changes with every change of a message. The client may be of another build than the monitor.
pub const VERSION: u32 = 1;
/// Maximum payload of a frame, in bytes: a file with the longest paths and list of attributes.
pub const MAX_FILE_FRAME: u32 = 256 << 10;
/// Bytes of one `Data`, at most.
pub const MAX_DATA: usize = 32 << 10;

/// One message of the input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileMessage {
    /// Where the files go. Always the first message.
    Begin(Destination),
    /// The next file.
    File(FileEntry),
    /// The next bytes of the last file.
    Data(Vec<u8>),
    /// So many zeroes follow.
    Hole(u64),
    /// All files were sent.
    End,
}

/// Where files go, as a user says it, by docker's rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// A path in the workload's root. A relative one begins there.
    pub path: Vec<u8>,
    /// What is copied.
    pub source: CopySource,
}

/// What is copied. It decides what the path of a destination means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CopySource {
    /// Any files, into a directory that must be there.
    Archive,
    /// One file of this name that is no directory. Its entry has an empty path.
    File {
        /// Its last component.
        name: Vec<u8>,
    },
    /// A directory of this name. The first entry is its own and has an empty path.
    Directory {
        /// Its last component.
        name: Vec<u8>,
    },
    /// What is in a directory. The first entry is the directory's own and has an empty path.
    Contents,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Below the destination: names with a slash between them, neither `.` nor `..`.
    pub path: Vec<u8>,
    /// Its type.
    pub kind: EntryKind,
    /// Permission bits, with set-id bits and sticky bit.
    pub mode: u16,
    /// Number of its owner.
    pub user: u32,
    /// Number of its group.
    pub group: u32,
    /// Time of the last modification, since 1970.
    pub seconds: i64,
    /// Its fraction.
    pub nanoseconds: u32,
    /// Extended attributes: full names and values.
    pub attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Type of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryKind {
    /// Its bytes follow.
    Regular,
    /// A directory. One that is there stays as it is.
    Directory,
    /// With its target.
    Symlink(Vec<u8>),
    /// Another name of an earlier file with this path below the destination.
    HardLink(Vec<u8>),
    /// With major and minor number.
    CharacterDevice(u32, u32),
    /// With major and minor number.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
}

/// Why the files were not written, or not all of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteFailure {
    /// The file in the workload's root.
    pub path: Vec<u8>,
    /// What is wrong with it; empty if the error number says it.
    pub fault: String,
    /// Linux error number, or 0.
    pub errno: i32,
}
