// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a process may do and use, besides the rights of its user. Plain data, which PID 1 applies
//! before `execve`.

use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Attributes of a process. The default is what every workload has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProcessAttributes {
    /// Resource limits in place of the default ones (`--ulimit`).
    pub limits: Vec<ResourceLimit>,
    /// Supplementary groups besides the user's, as names of the image's `/etc/group` or as numbers
    /// (`--group-add`).
    pub groups: Vec<String>,
    /// Absent means 0022.
    pub umask: Option<u32>,
    /// What of root's privileges it can have.
    pub capabilities: Capabilities,
    /// No program gives it more privileges, as a set-user-ID program does.
    pub no_new_privileges: bool,
    /// How soon the kernel kills it when memory runs out, -1000 to 1000. Absent leaves the
    /// kernel's.
    pub oom_score_adj: Option<i16>,
}

/// `setrlimit(2)`. `None` is unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceLimit {
    /// The kernel's number of the resource, an index of [`ResourceLimit::NAMES`].
    pub resource: u8,
    /// The limit that the kernel enforces.
    pub soft: Option<u64>,
    /// What the process can raise it to.
    pub hard: Option<u64>,
}

impl ResourceLimit {
    /// Resources by their numbers; `RLIMIT_` names in lower case.
    pub const NAMES: [&str; 16] = [
        "cpu",
        "fsize",
        "data",
        "stack",
        "core",
        "rss",
        "nproc",
        "nofile",
        "memlock",
        "as",
        "locks",
        "sigpending",
        "msgqueue",
        "nice",
        "rtprio",
        "rttime",
    ];
    /// The number of the limit of open files.
    pub const OPEN_FILES: u8 = 7;
}

/// Capabilities of a process; bit n is capability n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Capabilities {
    /// All for root, none for other users.
    #[default]
    All,
    /// The same within a bounding set (`--cap-drop`).
    Bounded(u64),
    /// Each set is given.
    Sets(CapabilitySets),
}

/// `capabilities(7)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CapabilitySets {
    /// What programs can give.
    pub bounding: u64,
    /// What the kernel checks.
    pub effective: u64,
    /// What programs with inheritable capabilities keep.
    pub inheritable: u64,
    /// What can become effective.
    pub permitted: u64,
    /// What every program keeps.
    pub ambient: u64,
}
