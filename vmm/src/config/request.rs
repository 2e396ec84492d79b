// SPDX-License-Identifier: Apache-2.0 OR MIT
//! [`Request`]: every option of `run`, on the command line and in the configuration document. Each value is checked when it is
//! parsed. What depends on several options, or on the host, is checked in `run/resolve.rs`.
//!
//! To add an option: see `vmm/src/config/README.md`.

use super::capability::{Capability, remaining};
use super::cpus::CpuCount;
use super::destination::Destination;
use super::disk::Disk;
use super::dns_word::DnsWord;
use super::environment::EnvVar;
use super::host_entry::HostEntry;
use super::interval::Interval;
use super::mac_address::MacAddress;
use super::name::{HostName, MachineName};
use super::network::Network;
use super::number::{adjustment, port, seconds, times};
use super::platform::PlatformChoice;
use super::publish::Publish;
use super::pull_policy::PullPolicy;
use super::root_format::RootFormatChoice;
use super::security_option::SecurityOption;
use super::signal::SignalNumber;
use super::size::{LogSize, MemorySize, Scratch};
use super::sysctl::Sysctl;
use super::template_use::TemplateUse;
use super::text_form::Given;
use super::tmpfs::Tmpfs;
use super::ulimit::Ulimit;
use super::volume::{Mount, VolumeOption};
use super::vsock::Vsock;
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{ArgAction, Args, ValueEnum, ValueHint};
use guest_protocol::attributes::ProcessAttributes;
use guest_protocol::run_spec::RestrictedPaths;
use kvm::KvmKind;
use oci_image::Platform;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

/// A field has the name of its option. An option that was not given is absent.
#[derive(Clone, Debug, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(crate) struct Request {
    /// Of the document; always [`VERSION`](super::document::VERSION).
    #[arg(skip)]
    pub(crate) version: u32,
    /// The image reference as given.
    #[arg(skip)]
    pub(crate) image: Option<String>,
    /// Replaces the image's Cmd.
    #[arg(skip)]
    pub(crate) command: Vec<String>,
    /// Of the workload, in place of those that the options below state. An OCI runtime gives them.
    #[arg(skip)]
    pub(crate) attributes: Option<ProcessAttributes>,
    /// The workload's seccomp filter, as in [`RunSpec`](guest_protocol::run_spec::RunSpec). An OCI runtime gives it.
    #[arg(skip)]
    pub(crate) seccomp: Vec<u64>,
    /// What is restricted in `/proc` and `/sys` in place of docker's list. An OCI runtime gives it.
    #[arg(skip)]
    pub(crate) restricted_paths: Option<RestrictedPaths>,
    /// TERM and INT go to the workload like every other signal: an engine itself cuts the power after its time.
    #[arg(skip)]
    pub(crate) forward_stops: bool,

    /// Set an environment variable; without a value, copy it from this environment
    #[arg(short, long, value_name = "NAME[=VALUE]", help_heading = "What runs")]
    pub(crate) env: Vec<EnvVar>,
    /// Set the environment variables in a file, one a line
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "What runs")]
    pub(crate) env_file: Vec<PathBuf>,
    /// Read host name, addresses, name servers, SSH keys, environment and a start script from what a cloud gives its machines: an
    /// ISO 9660 image, a VFAT disk or a directory in the form of OpenNebula, config-2 or cidata
    #[arg(long, value_name = "FILE|DIR", value_parser = path(), value_hint = ValueHint::AnyPath, help_heading = "What runs")]
    pub(crate) context: Option<PathBuf>,
    /// Replace the image's Entrypoint, and clear its Cmd
    #[arg(long, value_name = "COMMAND", help_heading = "What runs", allow_hyphen_values = true)]
    pub(crate) entrypoint: Option<String>,
    /// Working directory; created if missing
    #[arg(short, long, value_name = "PATH", help_heading = "What runs")]
    pub(crate) workdir: Option<String>,
    /// User name or number, optionally with :GROUP; looked up in the image's files
    #[arg(short, long, value_name = "USER", help_heading = "What runs")]
    pub(crate) user: Option<String>,
    /// Start the root's own init (/sbin/init, or the command); a --rootfs disk is then written in place, unless --scratch or
    /// --read-only is given
    #[arg(long, help_heading = "What runs")]
    pub(crate) system: bool,
    /// Run a small init as parent of the workload, so that TERM ends a workload without signal handlers
    #[arg(long, help_heading = "What runs")]
    pub(crate) init: bool,
    /// Leave /proc and /sys complete and writable, as --system does; without it they are restricted as in docker
    #[arg(long, help_heading = "What runs")]
    pub(crate) privileged: bool,
    /// Add a group, a name of the image's or a number, to those of the user
    #[arg(long, value_name = "GROUP", help_heading = "What runs")]
    pub(crate) group_add: Vec<String>,
    /// Limit a resource: NAME is nofile, nproc, core, memlock, ..., -1 is unlimited
    #[arg(long, value_name = "NAME=SOFT[:HARD]", help_heading = "What runs")]
    pub(crate) ulimit: Vec<Ulimit>,
    /// Take a capability, or ALL, from root in the workload
    #[arg(long, value_name = "NAME", help_heading = "What runs")]
    pub(crate) cap_drop: Vec<Capability>,
    /// Keep a capability that --cap-drop ALL would take
    #[arg(long, value_name = "NAME", help_heading = "What runs")]
    pub(crate) cap_add: Vec<Capability>,
    /// `no-new-privileges`: set-user-ID programs and file capabilities give the workload none
    #[arg(long, value_name = "OPTION", help_heading = "What runs")]
    pub(crate) security_opt: Vec<SecurityOption>,
    /// How soon the guest's kernel kills the workload when memory runs out, -1000 to 1000 [default: 0]
    #[arg(long, value_name = "NUMBER", value_parser = adjustment, help_heading = "What runs", allow_hyphen_values = true)]
    pub(crate) oom_score_adj: Option<i16>,

    /// Keep standard input open to the workload; with -d, to `coracle attach`
    #[arg(short, long, help_heading = "Streams and signals")]
    pub(crate) interactive: bool,
    /// Give the workload a terminal
    #[arg(short, long, help_heading = "Streams and signals")]
    pub(crate) tty: bool,
    /// Signal that TERM sends to the workload, instead of the image's StopSignal [default: TERM, RTMIN+4 with --system]
    #[arg(long, value_name = "SIGNAL", help_heading = "Streams and signals", allow_hyphen_values = true)]
    pub(crate) stop_signal: Option<Given<SignalNumber>>,
    /// From TERM until power is cut [default: 10, 90 with --system]
    #[arg(long, value_name = "SECONDS", value_parser = seconds, help_heading = "Streams and signals")]
    pub(crate) stop_timeout: Option<u32>,
    /// Cut power after this time, with status 137 and reason `timeout`
    #[arg(long, value_name = "SECONDS", value_parser = seconds, help_heading = "Streams and signals")]
    pub(crate) timeout: Option<u32>,

    /// Check the workload's health with this shell command, instead of the image's
    #[arg(long, value_name = "COMMAND", help_heading = "Health and readiness", allow_hyphen_values = true)]
    pub(crate) health_cmd: Option<String>,
    /// Time from the end of a check to the next [default: 30s]
    #[arg(long, value_name = "TIME", help_heading = "Health and readiness")]
    pub(crate) health_interval: Option<Interval>,
    /// Time after which a check fails [default: 30s]
    #[arg(long, value_name = "TIME", help_heading = "Health and readiness")]
    pub(crate) health_timeout: Option<Interval>,
    /// Failures in a row that make the workload unhealthy [default: 3]
    #[arg(long, value_name = "NUMBER", value_parser = times, help_heading = "Health and readiness")]
    pub(crate) health_retries: Option<u32>,
    /// Time after the start in which failures do not count [default: 0s]
    #[arg(long, value_name = "TIME", help_heading = "Health and readiness")]
    pub(crate) health_start_period: Option<Interval>,
    /// Interval within --health-start-period [default: 5s]
    #[arg(long, value_name = "TIME", help_heading = "Health and readiness")]
    pub(crate) health_start_interval: Option<Interval>,
    /// Do not run the image's health check
    #[arg(long, help_heading = "Health and readiness")]
    pub(crate) no_healthcheck: bool,
    /// Ready once this TCP port of the guest accepts connections, instead of once the workload is executed
    #[arg(long, value_name = "PORT", value_parser = port, help_heading = "Health and readiness")]
    pub(crate) ready_port: Option<NonZeroU16>,
    /// Ready once this shell command exits with status 0
    #[arg(long, value_name = "COMMAND", help_heading = "Health and readiness", allow_hyphen_values = true)]
    pub(crate) ready_exec: Option<String>,
    /// Ready once the workload sends READY=1 with sd_notify; it gets NOTIFY_SOCKET, and WATCHDOG_USEC under a watchdog
    #[arg(long, help_heading = "Health and readiness")]
    pub(crate) ready_notify: bool,

    /// Memory (512m, 2g) [default: 512m; 256m where KVM emulates guest kernel mode]
    #[arg(short, long, value_name = "SIZE", help_heading = "Machine", allow_hyphen_values = true)]
    pub(crate) memory: Option<MemorySize>,
    /// Number of virtual CPUs [default: 1]
    #[arg(long, value_name = "NUMBER", help_heading = "Machine", allow_hyphen_values = true)]
    pub(crate) cpus: Option<CpuCount>,
    /// Guest kernel, vmlinux or bzImage [default: the one that came with coracle]
    #[arg(long, value_name = "FILE", value_parser = path(), value_hint = ValueHint::FilePath, help_heading = "Machine")]
    pub(crate) kernel: Option<PathBuf>,
    /// Directory of the guest kernel's modules [default: lib/modules beside the kernel or its directory]
    #[arg(long, value_name = "DIR", value_parser = path(), value_hint = ValueHint::DirPath, help_heading = "Machine")]
    pub(crate) modules: Option<PathBuf>,
    /// Program that is PID 1 of the guest [default: the one that came with coracle]
    #[arg(long, value_name = "FILE", value_parser = path(), value_hint = ValueHint::FilePath, help_heading = "Machine")]
    pub(crate) init_binary: Option<PathBuf>,
    /// Append to the guest kernel's command line
    #[arg(long, value_name = "STRING", help_heading = "Machine", allow_hyphen_values = true)]
    pub(crate) append: Option<String>,
    /// Start from a template of the machine, with the guest's kernel and init running [default: never]
    #[arg(long, value_name = "WHEN", help_heading = "Machine")]
    pub(crate) template: Option<TemplateUse>,

    /// Root file system in place of an image: a disk (erofs, squashfs, ext4), or a directory of this host, which is written in place
    /// unless --scratch or --read-only is given; all arguments are then the command
    #[arg(long, value_name = "FILE|DIR", value_parser = path(), value_hint = ValueHint::AnyPath, help_heading = "File systems")]
    pub(crate) rootfs: Option<PathBuf>,
    /// When an image by name is pulled from its registry: always, missing or never [default: missing]
    #[arg(long, value_name = "WHEN", help_heading = "File systems")]
    pub(crate) pull: Option<Given<PullPolicy>>,
    /// Image for a platform: linux/amd64, or linux/amd64/VARIANT for one that needs at most that (v1 to v4) [default: the
    /// best that the processor runs]
    #[arg(long, value_name = "PLATFORM", help_heading = "File systems")]
    pub(crate) platform: Option<Given<PlatformChoice>>,
    /// File system that an image is converted to [default: auto, one that the kernel has]
    #[arg(long, value_name = "FORMAT", help_heading = "File systems")]
    pub(crate) root_format: Option<RootFormatChoice>,
    /// Where writes to the root go: a temporary disk of SIZE, tmpfs, or none [default: 8g, tmpfs with --read-only]
    #[arg(long, value_name = "SIZE|tmpfs|none", help_heading = "File systems", allow_hyphen_values = true)]
    pub(crate) scratch: Option<Scratch>,
    /// Mount the root read-only
    #[arg(long, help_heading = "File systems")]
    pub(crate) read_only: bool,
    /// Leave /etc/hosts, /etc/hostname and /etc/resolv.conf of the root as they are
    #[arg(long, help_heading = "File systems")]
    pub(crate) keep_etc: bool,
    /// Mount a tmpfs
    #[arg(long, value_name = "PATH[:OPTIONS]", help_heading = "File systems")]
    pub(crate) tmpfs: Vec<Tmpfs>,
    /// Mount a volume (NAME:PATH), which outlives the machine; a directory or a file of the host (HOST_PATH:PATH); or an empty
    /// directory (PATH). OPTIONS: ro, and for volumes nocopy
    #[arg(short, long, value_name = "[SOURCE:]PATH[:OPTIONS]", help_heading = "File systems")]
    pub(crate) volume: Vec<VolumeOption>,
    /// The same in words: type=volume|bind|tmpfs, source=SOURCE, target=PATH, readonly, volume-nocopy, tmpfs-size=SIZE,
    /// tmpfs-mode=MODE
    #[arg(long, value_name = "WORDS", help_heading = "File systems")]
    pub(crate) mount: Vec<Mount>,
    /// Add a disk: path=FILE[,ro][,serial=S]
    #[arg(long, value_name = "DISK", help_heading = "File systems")]
    pub(crate) disk: Vec<Disk>,

    /// Host name of the workload [default: the name of the machine]
    #[arg(short = 'h', long, value_name = "NAME", help_heading = "Network", allow_hyphen_values = true)]
    pub(crate) hostname: Option<Given<HostName>>,
    /// `user` (passt), bridge[=NAME], adopt[=IFNAME], tap=NAME, fd=N, socket=PATH or `none`, with [,mac=MAC]
    /// [,ip=ADDRESS/PREFIX|dhcp][,gw=ADDRESS][,mtu=BYTES][,name=IFNAME] [default: user; none if passt is not installed]
    #[arg(long, value_name = "NETWORK", help_heading = "Network")]
    pub(crate) network: Vec<Given<Network>>,
    /// Another name by which the machines of its bridge find this one
    #[arg(long, value_name = "NAME", help_heading = "Network", alias = "net-alias")]
    pub(crate) network_alias: Vec<HostName>,
    /// Publish a port of the guest on the host: [IP:][HOST:]GUEST[-GUEST][/tcp|udp]; without HOST a free one
    #[arg(short, long, value_name = "PORT", help_heading = "Network")]
    pub(crate) publish: Vec<Publish>,
    /// Publish the image's ExposedPorts, each on a free port of the host
    #[arg(short = 'P', long, help_heading = "Network")]
    pub(crate) publish_all: bool,
    /// MAC address of the network device
    #[arg(long, value_name = "MAC", help_heading = "Network")]
    pub(crate) mac_address: Option<Given<MacAddress>>,
    /// Name server in the workload's /etc/resolv.conf
    #[arg(long, value_name = "ADDRESS", help_heading = "Network")]
    pub(crate) dns: Vec<IpAddr>,
    /// Domain that is tried for short names; `.` for none
    #[arg(long, value_name = "DOMAIN", help_heading = "Network")]
    pub(crate) dns_search: Vec<DnsWord>,
    /// Option of the resolver, like ndots:2
    #[arg(long, value_name = "OPTION", alias = "dns-opt", help_heading = "Network")]
    pub(crate) dns_option: Vec<DnsWord>,
    /// Line in the workload's /etc/hosts; ADDRESS may be `host-gateway`, the host as the guest reaches it
    #[arg(long, value_name = "NAME:ADDRESS", help_heading = "Network")]
    pub(crate) add_host: Vec<HostEntry>,
    /// Serve the JSON object in FILE at 169.254.169.254, in the shape of EC2's metadata (IMDSv2), to this machine alone
    #[arg(long, value_name = "FILE", value_parser = path(), value_hint = ValueHint::FilePath, help_heading = "Network")]
    pub(crate) metadata: Option<PathBuf>,
    /// Kernel parameter of the guest: net.*, kernel.shm*, kernel.msg*, kernel.sem or fs.mqueue.* (net.ipv4.ip_forward=1)
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Network")]
    pub(crate) sysctl: Vec<Sysctl>,
    /// Connect vsock streams of the guest with Unix sockets: PATH for `CONNECT PORT` from the host, PATH_PORT for the guest's
    /// connections to CID 2 [default cid: 3]
    #[arg(long, value_name = "PATH[,cid=N]", help_heading = "Network")]
    pub(crate) vsock: Option<Given<Vsock>>,

    /// Return once the workload runs and is ready, and print the machine's name; its output goes to `coracle logs`
    #[arg(short, long, help_heading = "This run")]
    pub(crate) detach: bool,
    /// With -d, how much of standard output and standard error each is kept [default: 16m]
    #[arg(long, value_name = "SIZE", help_heading = "This run", allow_hyphen_values = true)]
    pub(crate) log_size: Option<LogSize>,
    /// Name of the machine; its run directory and, without --rm, its writable layer are then kept until `coracle rm` or the next
    /// run with the name [default: a random name]
    #[arg(long, value_name = "NAME", help_heading = "This run", allow_hyphen_values = true)]
    pub(crate) name: Option<Given<MachineName>>,
    /// Name of the machine for programs that choose identifiers: no writable layer is kept
    #[arg(long, value_name = "ID", help_heading = "This run", conflicts_with = "name", allow_hyphen_values = true)]
    pub(crate) id: Option<Given<MachineName>>,
    /// Keep nothing at the end, even of a named or detached machine
    #[arg(long, help_heading = "This run")]
    pub(crate) rm: bool,
    /// Directory of all run directories [default: $XDG_RUNTIME_DIR/coracle, or /run/coracle]
    #[arg(long, value_name = "DIR", value_parser = path(), value_hint = ValueHint::DirPath, help_heading = "This run")]
    pub(crate) run_dir: Option<PathBuf>,
    /// Write the machine's name to a new file
    #[arg(long, value_name = "FILE", value_parser = path(), value_hint = ValueHint::FilePath, help_heading = "This run")]
    pub(crate) cidfile: Option<PathBuf>,
    /// Write the result, one JSON object, to a file or an open descriptor
    #[arg(long, value_name = "FILE|fd:N", help_heading = "This run")]
    pub(crate) result: Option<Destination>,
    /// Write each change of the status, one line of JSON, to an open descriptor, or append it to a file
    #[arg(long, value_name = "fd:N|FILE", help_heading = "This run")]
    pub(crate) events: Option<Destination>,
    /// At the end, print the time of each stage to stderr
    #[arg(long, help_heading = "This run")]
    pub(crate) timings: bool,
    /// Confinement of coracle's own process: what the host has, all layers, or none [default: auto]
    #[arg(long, value_name = "MODE", help_heading = "This run")]
    pub(crate) sandbox: Option<SandboxMode>,
    /// Level of coracle's own messages on stderr [default: warn]
    #[arg(long, value_name = "LEVEL", help_heading = "This run")]
    pub(crate) log_level: Option<LogLevel>,
    /// Sample the guest's call chains each millisecond; write folded stacks (for flamegraph) to this file
    #[arg(long, value_name = "FILE", value_parser = path(), value_hint = ValueHint::FilePath, help_heading = "This run", hide = true)]
    pub(crate) profile: Option<PathBuf>,
    /// Write the guest kernel's messages to this file instead of the run directory
    #[arg(long, value_name = "FILE", value_parser = path(), value_hint = ValueHint::FilePath, help_heading = "This run", hide = true)]
    pub(crate) console: Option<PathBuf>,

    /// Print help
    #[arg(long, action = ArgAction::HelpShort)]
    #[serde(skip)]
    pub(crate) help: Option<bool>,
}

/// A path that may be empty, as if it were not given; clap's own parser rejects it.
fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

impl Request {
    /// Where writes to the root go, if not to its own disk.
    #[must_use]
    pub(crate) fn scratch(&self) -> Scratch {
        match self.scratch {
            Some(scratch) => scratch,
            None if self.writes_in_place() => Scratch::None,
            None => Scratch::default_for(self.read_only),
        }
    }

    /// Whether writes to the root go to its own disk or directory.
    #[must_use]
    pub(crate) fn writes_in_place(&self) -> bool {
        let has_own = self.rootfs.is_some() && (self.system || self.is_root_directory());
        has_own && self.scratch.is_none() && !self.read_only
    }

    /// Whether `--rootfs` names a directory of the host.
    #[must_use]
    pub(crate) fn is_root_directory(&self) -> bool {
        self.rootfs.as_ref().is_some_and(|path| path.is_dir())
    }

    /// On a host with this kind of KVM; without KVM, which ends every run, as on a native one.
    #[must_use]
    pub(crate) fn memory(&self, kvm: Option<KvmKind>) -> MemorySize {
        self.memory.unwrap_or_else(|| MemorySize::default_for(kvm.unwrap_or(KvmKind::Native)))
    }

    /// From a request to stop until power is cut.
    #[must_use]
    pub(crate) fn stop_timeout(&self) -> Duration {
        Duration::from_secs(self.stop_timeout.unwrap_or(if self.system { 90 } else { 10 }).into())
    }

    /// Which of an image's platforms is used.
    #[must_use]
    pub(crate) fn platform(&self) -> Platform {
        self.platform.as_ref().and_then(Given::get).map(PlatformChoice::get).unwrap_or_default()
    }

    /// What `--volume` and `--mount` name, with the option.
    pub(crate) fn mounts(&self) -> impl Iterator<Item = (&'static str, &Mount)> {
        let volumes = self.volume.iter().map(|VolumeOption(mount)| ("-v", mount));
        volumes.chain(self.mount.iter().map(|mount| ("--mount", mount)))
    }

    /// Limits, groups and privileges of the workload.
    #[must_use]
    pub(crate) fn attributes(&self) -> ProcessAttributes {
        self.attributes.clone().unwrap_or_else(|| ProcessAttributes {
            limits: self.ulimit.iter().map(|Ulimit(limit)| *limit).collect(),
            groups: self.group_add.iter().filter(|group| !group.is_empty()).cloned().collect(),
            umask: None,
            capabilities: remaining(&self.cap_add, &self.cap_drop),
            // As in docker, the last one counts.
            no_new_privileges: self.security_opt.last().is_some_and(|option| option.no_new_privileges),
            oom_score_adj: self.oom_score_adj,
        })
    }

    #[must_use]
    pub(crate) fn given_name(&self) -> Option<&MachineName> {
        self.name.as_ref().or(self.id.as_ref()).and_then(Given::get)
    }
}

/// Confinement of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SandboxMode {
    /// By the layers that the host has.
    #[default]
    Auto,
    /// By all layers, or the run fails.
    Require,
    Off,
}

/// The least important messages that are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LogLevel {
    Off,
    Error,
    #[default]
    Warn,
    Info,
    Debug,
    Trace,
}

impl From<LogLevel> for log::LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Off => Self::Off,
            LogLevel::Error => Self::Error,
            LogLevel::Warn => Self::Warn,
            LogLevel::Info => Self::Info,
            LogLevel::Debug => Self::Debug,
            LogLevel::Trace => Self::Trace,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_has_90_s_to_stop_by_default() {
        let seconds =
            |system, stop_timeout| Request { system, stop_timeout, ..Request::default() }.stop_timeout().as_secs();
        assert_eq!((seconds(false, None), seconds(true, None)), (10, 90));
        assert_eq!((seconds(false, Some(3)), seconds(true, Some(3))), (3, 3));
    }
}
