// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What to run and in what surroundings: the contract between host and guest. Plain data, written by the host, sent
//! over the control port, obeyed by PID 1. It never appears on the kernel command line.

use crate::health::HealthCheck;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Everything that PID 1 must know to run one workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSpec {
    /// `argv` of the workload; never empty. The first is looked up in the `PATH` of `environment` if it holds no slash.
    pub arguments: Vec<String>,
    /// `NAME=value` strings, complete but for `HOME` and `TERM`, which PID 1 adds where they are missing.
    pub environment: Vec<String>,
    /// Made if missing. Empty means `/`.
    pub working_directory: String,
    /// A name, a number, `name:group` or `uid:gid`, resolved in the image's own files. Empty means root.
    pub user: String,
    /// Host name of the workload's UTS namespace; also written to `/etc/hostname`.
    pub hostname: String,
    /// A guest pty with this size instead of pipes.
    pub terminal: Option<WindowSize>,
    /// Whether the host relays its standard input (`-i`). Without it the workload reads end of file.
    pub stdin: bool,
    /// Put a small init between PID 1 and the workload (`--init`).
    pub init: bool,
    /// The root's own init is the workload (`--system`).
    pub system: Option<System>,
    /// Where the root file system comes from.
    pub root: Root,
    /// Further file systems to mount inside, in order (`--tmpfs`).
    pub tmpfs: Vec<TmpfsMount>,
    /// Contents of `/etc/resolv.conf`; empty leaves the image's file alone.
    pub resolv_conf: String,
    /// Lines added to `/etc/hosts` after the ones for localhost and the host name.
    pub extra_hosts: Vec<String>,
    /// Network interfaces, found by MAC address.
    pub interfaces: Vec<Interface>,
    /// When the workload counts as ready.
    pub readiness: Readiness,
    /// How it is found out whether the workload is well.
    pub health: Option<HealthCheck>,
}

/// What makes a workload ready.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Readiness {
    /// That it was executed.
    #[default]
    Executed,
    /// That this TCP port of the guest's own address 127.0.0.1 takes connections.
    Port(u16),
    /// That this command, run beside it, exits with 0.
    Command(Vec<String>),
    /// That it says so itself, by `sd_notify(3)`.
    Notified,
}

/// What is different for an init of the root's own, besides that it is the workload: its standard streams are a console,
/// without `terminal` too; `/run` is a tmpfs; `/etc` belongs to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct System {
    /// `hostname` takes the place of the one in its `/etc/hostname`, because somebody asked for it.
    pub hostname_is_asked_for: bool,
}

/// The root file system and what is laid over it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// `serial` of the virtio-blk device that holds it.
    pub disk_serial: String,
    /// File system types to try, in order (`erofs`, `ext4`, `squashfs`, ...).
    pub file_systems: Vec<String>,
    /// What takes the writes.
    pub upper: Upper,
    /// The workload sees its root read-only (`--read-only`). A scratch layer may still exist beneath it for mount points.
    pub read_only: bool,
}

/// What takes the writes to the root file system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Upper {
    /// Nothing: the root is mounted as it is, read-only (`--scratch none`).
    #[default]
    None,
    /// Overlay whose upper layer is in the guest's memory (`--scratch tmpfs`).
    Tmpfs,
    /// Overlay whose upper layer is the ext4 file system on the virtio-blk device with this serial.
    Disk(String),
    /// No overlay: the root disk itself is mounted writable (`--system` on a writable `--rootfs`).
    InPlace,
}

/// `--tmpfs PATH[:OPTIONS]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TmpfsMount {
    /// Absolute path in the workload's root; made if missing.
    pub path: String,
    /// Mount options as the kernel's tmpfs understands them, besides `ro`, `noexec`, `nosuid`, `nodev` and their opposites.
    pub options: String,
}

/// A network interface and its static configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// The device is found by it.
    pub mac: [u8; 6],
    /// IPv4 address and prefix length.
    pub address: Option<([u8; 4], u8)>,
    /// IPv4 default route.
    pub gateway: Option<[u8; 4]>,
}

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}
