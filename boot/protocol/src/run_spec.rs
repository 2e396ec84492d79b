// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What to run and in which environment. Plain data: the host writes it and sends it over the
//! control port, PID 1 carries it out. It never appears on the kernel command line.

use crate::attributes::ProcessAttributes;
use crate::health::HealthCheck;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;
use serde::{Deserialize, Serialize};

/// Everything that PID 1 needs to run one workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSpec {
    /// `argv` of the workload; never empty. A command without a slash is looked up in the `PATH` of
    /// `environment`.
    pub arguments: Vec<String>,
    /// `NAME=value` strings, complete but for `HOME` and `TERM`, which PID 1 adds where they are
    /// missing.
    pub environment: Vec<String>,
    /// Created if missing. Empty means `/`.
    pub working_directory: String,
    /// A name, a number, `name:group` or `uid:gid`, resolved in the image's own files. Empty means
    /// root.
    pub user: String,
    /// Host name of the workload's UTS namespace; also written to `/etc/hostname`.
    pub hostname: String,
    /// A guest pty of this size instead of pipes.
    pub terminal: Option<WindowSize>,
    /// Whether the host relays its standard input (`-i`). Without it the workload reads end of
    /// file.
    pub stdin: bool,
    /// Put a small init between PID 1 and the workload (`--init`).
    pub init: bool,
    /// The root file system's own init is the workload (`--system`).
    pub system: Option<System>,
    /// Source of the root file system.
    pub root: Root,
    /// Further file systems to mount, in order (`--tmpfs`).
    pub tmpfs: Vec<TmpfsMount>,
    /// Directories and files of the host to mount (`-v`).
    pub shares: Vec<ShareMount>,
    /// Volumes to mount (`--volume`, and the image's `VOLUME`s).
    pub volumes: Vec<VolumeMount>,
    /// What `/etc/resolv.conf` gets. Without a server, search list and option the image's file is
    /// left alone.
    pub resolver: Resolver,
    /// Lines added to `/etc/hosts` after those for localhost and the host name (`--add-host`).
    pub extra_hosts: Vec<Host>,
    /// Written in the workload's namespaces: name as in `sysctl(8)`, and value (`--sysctl`).
    pub sysctls: Vec<(String, String)>,
    /// Network interfaces, found by MAC address.
    pub interfaces: Vec<Interface>,
    /// When the workload counts as ready.
    pub readiness: Readiness,
    /// The check that decides whether the workload is healthy.
    pub health: Option<HealthCheck>,
    /// `/proc` and `/sys` are complete and writable (`--privileged`). Otherwise they are restricted
    /// as in docker.
    pub privileged: bool,
    /// `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` are left as they are (`--keep-etc`).
    pub keep_etc: bool,
    /// What is restricted in `/proc` and `/sys` in place of docker's list, unless `privileged`.
    pub restricted_paths: Option<RestrictedPaths>,
    /// Of the workload, and of processes beside it that have no own ones.
    pub attributes: ProcessAttributes,
    /// A seccomp filter for the workload and for all processes beside it: the instructions of one
    /// program of classic BPF, each as it is in memory. Empty means none.
    pub seccomp: Vec<u64>,
    /// Lines that `authorized_keys` of root gets (`--context`).
    pub authorized_keys: Vec<String>,
}

/// Absolute paths below `/proc` and `/sys`. Those that the kernel lacks are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RestrictedPaths {
    /// A directory is empty, a file reads as `/dev/null`.
    pub masked: Vec<String>,
    /// Cannot be written to.
    pub read_only: Vec<String>,
}

/// What makes a workload ready.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Readiness {
    /// Its `execve` succeeded.
    #[default]
    Executed,
    /// A TCP socket listens on one of the ports.
    Listening {
        /// In the network namespace of the workload.
        ports: Vec<u16>,
        /// The workload is ready as well once it does nothing, and after a minute.
        or_idle: bool,
    },
    /// This command, run beside the workload, exits with 0.
    Command(Vec<String>),
    /// The workload notifies it by `sd_notify(3)`.
    Notified,
}

/// Settings for an init of the root file system's own. Its standard streams are a console even
/// without `terminal`, `/run` is a tmpfs, and it owns `/etc`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct System {
    /// The user gave `hostname`, so it replaces the one in `/etc/hostname`.
    pub explicit_hostname: bool,
}

/// What is done for a workload before its run specification is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RootPreparation {
    /// Mounted, and entered by the process that becomes the workload.
    pub root: Root,
    /// The program that is probably executed, of which the kernel's page cache gets a copy, and of what it loads.
    pub expected: Option<ExpectedProgram>,
}

/// A program, as in a run specification.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedProgram {
    /// A path, or a name that is looked up.
    pub command: String,
    /// The directories in which a name is looked up; absent is the default.
    pub path: Option<String>,
}

/// The root file system and the layer that takes the writes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// `serial` of its virtio-blk device.
    pub disk_serial: String,
    /// Tag of the virtio-fs device that takes the place of the disk.
    pub share: Option<String>,
    /// File system types to try, in order (`erofs`, `ext4`, `squashfs`, ...).
    pub file_systems: Vec<String>,
    /// Where writes go.
    pub upper: Upper,
    /// The workload sees its root read-only (`--read-only`). A scratch layer may still exist
    /// beneath it for mount points.
    pub read_only: bool,
}

/// Where writes to the root file system go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Upper {
    /// Nowhere: the root is mounted read-only (`--scratch none`).
    #[default]
    None,
    /// Overlay whose upper layer is in the guest's memory (`--scratch tmpfs`).
    Tmpfs,
    /// Overlay whose upper layer is the ext4 file system on the virtio-blk device with this serial.
    Disk(String),
    /// The same on a disk that outlives the machine: it may hold what an earlier machine wrote, `fsync` is carried out, and the
    /// file system is clean after an orderly end.
    Kept(String),
    /// No overlay: the root disk itself is mounted writable (`--system` on a writable `--rootfs`), or the
    /// directory of the host.
    InPlace,
}

/// `--tmpfs PATH[:OPTIONS]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TmpfsMount {
    /// Absolute path in the workload's root; created if missing.
    pub path: String,
    /// Mount options of the kernel's tmpfs, and `ro`, `noexec`, `nosuid`, `nodev` and their
    /// opposites.
    pub options: String,
}

/// `-v HOST_PATH:GUEST_PATH[:ro]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareMount {
    /// Tag of its virtio-fs device.
    pub tag: String,
    /// Absolute path in the workload's root; created if missing.
    pub path: String,
    /// Only this file of the share is mounted, not the directory.
    pub file: Option<String>,
    /// The mount takes no writes. The host refuses them, too.
    pub read_only: bool,
}

/// A directory that is no part of the root file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeMount {
    /// Absolute path in the workload's root; created if missing.
    pub path: String,
    /// Where its files are.
    pub source: VolumeSource,
    /// The workload cannot write to it.
    pub read_only: bool,
    /// While it is empty, it gets what the image has at `path`.
    pub copy: bool,
}

/// Where the files of a volume are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumeSource {
    /// In the ext4 file system on the virtio-blk device with this serial, in its directory `_data`.
    Disk(String),
    /// On the scratch layer of the root, beside the overlay's directories; they end with the machine.
    Scratch,
}

/// Contents of `/etc/resolv.conf`, `resolv.conf(5)`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolver {
    /// Name servers, in the order in which they are asked.
    pub servers: Vec<IpAddr>,
    /// Domains that are tried for short names.
    pub search: Vec<String>,
    /// `options`, like `ndots:2`.
    pub options: Vec<String>,
}

/// One line of `/etc/hosts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// What the names resolve to.
    pub address: IpAddr,
    /// One name, or several separated by blanks.
    pub names: String,
}

/// A network interface and its configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Identifies the device.
    pub mac: [u8; 6],
    /// Its name in the guest; empty leaves the kernel's.
    pub name: String,
    /// Absent leaves the device's.
    pub mtu: Option<u16>,
    /// Set as they are, without duplicate address detection.
    pub addresses: Vec<Address>,
    /// Added in this order, so that a gateway may be reached by a route before it.
    pub routes: Vec<Route>,
    /// Ask for an IPv4 address, its routes and name servers by DHCP.
    pub dhcp: Option<Dhcp>,
}

/// How the answer of a DHCP server is used. [`RunSpec::resolver`] takes precedence over the name servers and the search list in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dhcp {
    /// Whether the search list is used.
    pub search: bool,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// IPv4 or IPv6.
    pub address: IpAddr,
    /// Length of the network's prefix, in bits.
    pub prefix: u8,
}

/// A route through an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Network that is reached; with a prefix of 0 the default route of its family.
    pub destination: Address,
    /// The next hop, of the same family. Absent if the network is on the link.
    pub gateway: Option<IpAddr>,
}

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowSize {
    /// Height of the terminal in lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}
