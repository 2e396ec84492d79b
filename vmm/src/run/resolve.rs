// SPDX-License-Identifier: Apache-2.0 OR MIT
//! From the request to a [`ResolvedRequest`]: everything that depends on several options at once, or on this host. Options
//! that contradict each other are rejected, disks are opened, the terminal is measured. Kernel, image and scratch disk are
//! still missing. Runs on the thread `prepare`, and for `coracle check` on `main`.

use super::failure::Failure;
use super::shares::{Share, ShareError, max_descriptors, open_root, open_shares};
use super::volumes;
use super::workload::{Workload, WorkloadError};
use crate::config::disk::{Disk, ROOT_SERIAL};
use crate::config::environment::{self, EnvVar};
use crate::config::guest_path;
use crate::config::name::VolumeName;
use crate::config::request::Request;
use crate::config::size::Scratch;
use crate::host::terminal;
use crate::network::{self, NetworkOptionError, ResolvedInterface};
use crate::state::end::EndReason;
use boot::CommandLine;
use boot::cmdline::CommandLineError;
use devices::rate_limit::RateLimits;
use devices::virtio::block::BlockConfig;
use devices::virtio::fs::FsConfig;
use guest_protocol::run_spec;
use oci_image::{ImageConfig, ImageReference, ReferenceError};
use rustix::fs::{FileType, Mode, OFlags, fstat};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Every interrupt line but those of console, entropy, network, root disk and scratch disk.
const MAX_DISKS: usize = 12;

/// Options that contradict each other, or that this host cannot satisfy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResolveError {
    #[error("no IMAGE given; see `coracle run --help`")]
    NoImage,
    #[error("--rootfs and an image contradict each other")]
    ImageAndRootfs,
    /// An init starts as root, at `/`, and is PID 1 itself.
    #[error("--system starts the root's own init; {0} does not apply to it")]
    System(&'static str),
    #[error("--system writes to {path} unless --scratch or --read-only is given; cannot open it for writing")]
    InPlace { path: PathBuf, source: std::io::Error },
    #[error("{0} names {1} twice")]
    SameMountPoint(&'static str, String),
    #[error("{0} and {1} both name {2}")]
    TwoMounts(&'static str, &'static str, String),
    #[error("volume {0} is given twice")]
    SameVolume(VolumeName),
    #[error("-v {0}: a volume without a name is on the scratch layer, and there is none")]
    NoScratch(String),
    #[error("-i with -t needs a terminal as standard input")]
    NoTerminal,
    #[error("--append")]
    Append(#[source] CommandLineError),
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Share(#[from] ShareError),
    #[error(transparent)]
    Network(#[from] NetworkOptionError),
    #[error("{0} contradicts {1}: only one option decides when the machine is ready")]
    Readiness(&'static str, &'static str),
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    #[error(transparent)]
    Image(#[from] ReferenceError),
}

impl From<ResolveError> for Failure {
    fn from(error: ResolveError) -> Self {
        let reason = match error {
            ResolveError::Image(_) => EndReason::ImageError,
            _ => EndReason::ConfigError,
        };
        Self::new(reason, error)
    }
}

/// Disks that cannot be used, or not together.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiskError {
    #[error("cannot open disk {path}{}", if *.read_only { "" } else { " for writing (`,ro` opens it for reading)" })]
    Open { path: PathBuf, read_only: bool, source: std::io::Error },
    #[error("{0} is given as two disks, and one of them is writable")]
    Shared(PathBuf),
    #[error("two disks have the serial `{0}`")]
    Serial(String),
    #[error("at most {MAX_DISKS} disks, volumes and directories of the host can be added")]
    TooMany,
}

/// Where the root disk comes from.
#[derive(Debug)]
pub(crate) enum RootSource {
    Image(ImageReference),
    /// The user's own disk, open, and what runs from it.
    Disk(BlockConfig, Box<Workload>),
    /// The user's own directory, open, and what runs from it.
    Directory(FsConfig, Box<Workload>),
}

/// A request without contradictions, with the disks and descriptors that it names open.
#[derive(Debug)]
pub(crate) struct ResolvedRequest {
    pub(crate) root: RootSource,
    /// The user's disks besides the root disk.
    pub(crate) disks: Vec<BlockConfig>,
    /// Directories and files of the host.
    pub(crate) shares: Vec<Share>,
    pub(crate) interfaces: Vec<ResolvedInterface>,
    /// The size of the guest's terminal (`-t`).
    pub(crate) terminal: Option<run_spec::WindowSize>,
}

impl ResolvedRequest {
    /// Checks `request` and opens what it names. `env_files` are the variables of files.
    pub(crate) fn new(request: &Request, env_files: &[EnvVar]) -> Result<Self, ResolveError> {
        if let Some(path) = request.workdir.as_ref().filter(|path| !path.starts_with('/')) {
            return Err(WorkloadError::WorkingDirectory(path.clone()).into());
        }
        check_mount_points(request)?;
        check_volumes(request)?;
        check_system(request)?;
        check_readiness(request)?;
        CommandLine::new().append(request.append.as_deref().unwrap_or_default()).map_err(ResolveError::Append)?;
        let terminal = if request.tty { Some(terminal_size(request.interactive && !request.detach)?) } else { None };
        let binds: Vec<_> = volumes::requested_binds(request).collect();
        let max_descriptors = max_descriptors(request, binds.len());
        let root = root_source(request, env_files, max_descriptors)?;
        let root_disk = match &root {
            RootSource::Disk(disk, _) => Some(disk),
            RootSource::Image(_) | RootSource::Directory(..) => None,
        };
        let volumes = volumes::requested(request).filter(|volume| volume.name.is_some()).count();
        let disks = open_disks(&request.disk, volumes + binds.len(), root_disk)?;
        let interfaces = network::resolve(request)?;
        let shares = open_shares(&binds, max_descriptors)?;
        Ok(Self { root, disks, shares, interfaces, terminal })
    }
}

/// Two mounts on one directory would hide one of them.
fn check_mount_points(request: &Request) -> Result<(), ResolveError> {
    let tmpfs = request.tmpfs.iter().map(|tmpfs| ("--tmpfs", tmpfs.path()));
    let mut options = BTreeMap::new();
    for (option, path) in tmpfs.chain(request.mounts().map(|(option, mount)| (option, mount.path()))) {
        let path = guest_path::normal(path).expect("paths are checked when they are parsed");
        match options.insert(path.clone(), option) {
            None => {}
            Some(other) if other == option => return Err(ResolveError::SameMountPoint(option, path)),
            Some(other) => return Err(ResolveError::TwoMounts(other, option, path)),
        }
    }
    Ok(())
}

fn check_volumes(request: &Request) -> Result<(), ResolveError> {
    let mut names = BTreeSet::new();
    for volume in volumes::requested(request) {
        match &volume.name {
            Some(name) if !names.insert(name) => return Err(ResolveError::SameVolume(name.clone())),
            None if matches!(request.scratch(), Scratch::None) => {
                return Err(ResolveError::NoScratch(volume.path.clone()));
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_system(request: &Request) -> Result<(), ResolveError> {
    let contradictions = [
        ("--user", request.user.is_some()),
        ("--workdir", request.workdir.is_some()),
        ("--entrypoint", request.entrypoint.is_some()),
        ("--init", request.init),
    ];
    match contradictions.iter().find(|(_, given)| *given) {
        Some((option, _)) if request.system => Err(ResolveError::System(option)),
        _ => Ok(()),
    }
}

fn check_readiness(request: &Request) -> Result<(), ResolveError> {
    let given = [
        ("--ready-port", request.ready_port.is_some()),
        ("--ready-exec", request.ready_exec.is_some()),
        ("--ready-notify", request.ready_notify),
    ];
    let mut names = given.iter().filter(|(_, given)| *given).map(|(name, _)| *name);
    match (names.next(), names.next()) {
        (Some(one), Some(other)) => Err(ResolveError::Readiness(one, other)),
        _ => Ok(()),
    }
}

fn terminal_size(interactive: bool) -> Result<run_spec::WindowSize, ResolveError> {
    if interactive && !terminal::is_terminal(std::io::stdin()) {
        return Err(ResolveError::NoTerminal);
    }
    Ok(terminal::standard_window_size())
}

fn root_source(request: &Request, env_files: &[EnvVar], max_descriptors: usize) -> Result<RootSource, ResolveError> {
    match (&request.image, &request.rootfs) {
        (Some(_), Some(_)) => Err(ResolveError::ImageAndRootfs),
        (None, None) => Err(ResolveError::NoImage),
        (Some(image), None) => Ok(RootSource::Image(ImageReference::parse(image)?)),
        (None, Some(path)) => {
            let workload = Workload::decide(&ImageConfig::default(), request, env_files, environment::host_value)?;
            if request.is_root_directory() {
                let directory = open_root(path, !request.writes_in_place(), max_descriptors)?;
                return Ok(RootSource::Directory(directory, Box::new(workload)));
            }
            let serial = ROOT_SERIAL.to_owned();
            let disk = match request.writes_in_place() {
                true => open_disk(path, false, serial).map_err(in_place)?,
                false => open_disk(path, true, serial)?,
            };
            Ok(RootSource::Disk(disk, Box::new(workload)))
        }
    }
}

/// Says that `--system` is why the disk is opened for writing.
fn in_place(error: DiskError) -> ResolveError {
    use ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    match error {
        DiskError::Open { path, source, .. } if matches!(source.kind(), PermissionDenied | ReadOnlyFilesystem) => {
            ResolveError::InPlace { path, source }
        }
        other => other.into(),
    }
}

/// Opens `disks` in their order; one without a serial becomes `disk0`, `disk1` and so on by its position. `root` is the
/// user's own root disk, which is already open; `others` devices come besides.
fn open_disks(disks: &[Disk], others: usize, root: Option<&BlockConfig>) -> Result<Vec<BlockConfig>, DiskError> {
    if disks.len() + others > MAX_DISKS {
        return Err(DiskError::TooMany);
    }
    let mut opened: Vec<BlockConfig> = Vec::new();
    for (index, disk) in disks.iter().enumerate() {
        let serial = disk.serial.clone().unwrap_or_else(|| format!("disk{index}"));
        if opened.iter().any(|other| other.serial == serial) {
            return Err(DiskError::Serial(serial));
        }
        let limits = disk.limits;
        let disk = BlockConfig { limits, ..open_disk(&disk.path, disk.read_only, serial)? };
        let is_same = |other: &&BlockConfig| same_disk(&other.file, &disk.file);
        if let Some(other) = opened.iter().chain(root).find(is_same)
            && !(other.read_only && disk.read_only)
        {
            return Err(DiskError::Shared(disk.path));
        }
        opened.push(disk);
    }
    Ok(opened)
}

/// Opens a disk, without waiting if it is a FIFO: the block device rejects what is not a disk.
fn open_disk(path: &Path, read_only: bool, serial: String) -> Result<BlockConfig, DiskError> {
    let access = if read_only { OFlags::RDONLY } else { OFlags::RDWR };
    let flags = access | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| DiskError::Open {
        path: path.to_owned(),
        read_only,
        source: error.into(),
    })?;
    let (file, path, limits) = (file.into(), path.to_owned(), RateLimits::default());
    Ok(BlockConfig { file, path, more: Vec::new(), read_only, scratch: false, serial, limits })
}

/// Whether both are the same file, or nodes of the same block device.
fn same_disk(one: &File, other: &File) -> bool {
    let (Ok(one), Ok(other)) = (fstat(one), fstat(other)) else { return false };
    let is_device = |mode| FileType::from_raw_mode(mode) == FileType::BlockDevice;
    match (is_device(one.st_mode), is_device(other.st_mode)) {
        (true, true) => one.st_rdev == other.st_rdev,
        (false, false) => (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(image: &str) -> Request {
        Request { image: Some(image.to_owned()), ..Request::default() }
    }

    fn rejection(request: &Request) -> String {
        ResolvedRequest::new(request, &[]).unwrap_err().to_string()
    }

    #[test]
    fn image_alone_is_a_complete_request() {
        let resolved = ResolvedRequest::new(&request("oci:x"), &[]).unwrap();
        assert!(matches!(resolved.root, RootSource::Image(image) if image.to_string() == "oci:x"));
        assert!(resolved.disks.is_empty() && resolved.interfaces.len() == 1 && resolved.terminal.is_none());
    }

    #[test]
    fn contradictions_are_rejected_by_option() {
        let image = request("oci:x");
        let table = [
            (Request::default(), "IMAGE"),
            (request("docker-daemon:x"), "docker-daemon"),
            (Request { rootfs: Some("/dev/null".into()), ..image.clone() }, "--rootfs"),
            (Request { rootfs: Some("/dev/null".into()), ..Request::default() }, "command"),
            (Request { workdir: Some("relative".into()), ..image.clone() }, "relative"),
            (Request { system: true, user: Some("app".into()), ..image.clone() }, "--user"),
            (Request { system: true, workdir: Some("/srv".into()), ..image.clone() }, "--workdir"),
            (Request { system: true, entrypoint: Some("sh".into()), ..image.clone() }, "--entrypoint"),
            (Request { system: true, init: true, ..image.clone() }, "--init"),
            (Request { ready_exec: Some("x".into()), ready_notify: true, ..image.clone() }, "--ready-notify"),
            (Request { append: Some("two\nlines".into()), ..image.clone() }, "--append"),
            (
                Request { tmpfs: vec!["/a".parse().unwrap(), "/a/:size=1m".parse().unwrap()], ..image.clone() },
                "--tmpfs names /a twice",
            ),
            (
                Request {
                    tmpfs: vec!["/a".parse().unwrap()],
                    volume: vec!["/tmp:/./a/".parse().unwrap()],
                    ..image.clone()
                },
                "--tmpfs and -v both name /a",
            ),
            (Request { volume: vec!["/tmp:/d".parse().unwrap(); 13], ..image.clone() }, "-v names /d twice"),
            (volumes(&["a:/data", "b:/data/"], image.clone()), "-v names /data twice"),
            (volumes(&["a:/data", "a:/other"], image.clone()), "volume a is given twice"),
            (
                Request { tmpfs: vec!["/data".parse().unwrap()], ..volumes(&["/data"], image.clone()) },
                "--tmpfs and -v both name /data",
            ),
            (Request { scratch: Some(Scratch::None), ..volumes(&["/data"], image.clone()) }, "-v /data"),
        ];
        for (request, object) in table {
            let rejection = rejection(&request);
            assert!(rejection.contains(object), "{object}: {rejection}");
        }
    }

    fn volumes(texts: &[&str], request: Request) -> Request {
        Request { volume: texts.iter().map(|text| text.parse().unwrap()).collect(), ..request }
    }

    fn open_texts(texts: &[String]) -> Result<Vec<BlockConfig>, DiskError> {
        open_disks(&texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>(), 0, None)
    }

    #[test]
    fn file_is_two_disks_only_if_both_are_read_only() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("a.img"), directory.path().join("link"));
        std::fs::write(&file, [0; 512]).unwrap();
        std::fs::hard_link(&file, &link).unwrap();
        let text = |path: &Path, more: &str| format!("path={}{more}", path.display());
        let shared = open_texts(&[text(&file, ",ro"), text(&link, ",ro")]).unwrap();
        assert_eq!([&*shared[0].serial, &*shared[1].serial], ["disk0", "disk1"]);
        for texts in [[text(&file, ""), text(&link, ",ro")], [text(&file, ",ro"), text(&link, "")]] {
            assert!(matches!(open_texts(&texts), Err(DiskError::Shared(path)) if path == link), "{texts:?}");
        }
    }

    #[test]
    fn two_disks_with_one_serial_are_rejected() {
        let texts = ["path=/dev/null,ro,serial=disk1".to_owned(), "path=/dev/zero,ro".to_owned()];
        assert!(matches!(open_texts(&texts), Err(DiskError::Serial(serial)) if serial == "disk1"));
    }
}
