// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The bundle of a container: `config.json`, and beside it a directory of Coracle's own, which the container has as `/dev/.coracle`.
//! `/dev` is a tmpfs there, so that no mount point is left in the container's files, and the guest has a `/dev` of its own.
//!
//! | in the directory | holds |
//! |---|---|
//! | `request.json` | the request of the machine, the workload's environment included; readable by root only |
//! | `original.json` | the engine's `config.json`, while the delegate reads the changed one |
//! | `run` | the run directory, with the control socket |
//! | `bin` | mount points of the binary, the guest's kernel and PID 1 |

use super::command::Root;
use super::error::{DocumentError, OciError};
use super::process::Process;
use super::seccomp;
use super::settings::{Annotated, Settings, parse};
use super::{CAPABILITIES, MACHINE, OWN, in_container, json, make_own};
use crate::config::cpus::CpuCount;
use crate::config::environment::EnvVar;
use crate::config::request::Request;
use crate::config::size::MemorySize;
use crate::config::sysctl::{self, Sysctl};
use crate::host::atomic_write::atomic_write;
use crate::host::directories::{Directories, IN_CONTAINER};
use crate::host::installed;
use boot::layout::MAX_CPUS;
use guest_protocol::run_spec::RestrictedPaths;
use serde_json::{Map, Value, json};
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// File of the machine's request.
pub(super) const REQUEST: &str = "request.json";
const ORIGINAL: &str = "original.json";
/// What the monitor itself needs besides the guest's memory: tables, queues, and the cache of the container's files.
const OVERHEAD: u64 = 64 << 20;
/// Threads and the client processes of `exec`.
const MIN_PIDS: i64 = 256;
/// Devices that every container has.
const COMMON_DEVICES: [&str; 9] = ["null", "zero", "full", "random", "urandom", "tty", "console", "ptmx", "kvm"];
const KVM: (u32, u32) = (10, 232);

#[derive(Debug)]
pub(super) struct Bundle {
    /// The absolute path, free of symbolic links.
    path: PathBuf,
    /// The engine's `config.json`.
    bytes: Vec<u8>,
    config: Map<String, Value>,
}

/// A changed `config.json`, which is restored when this is dropped.
#[derive(Debug)]
pub(super) struct Changed {
    config: PathBuf,
    original: PathBuf,
}

impl Drop for Changed {
    fn drop(&mut self) {
        // Otherwise the original stays beside it.
        let _ = fs::rename(&self.original, &self.config);
    }
}

impl Bundle {
    pub(super) fn open(path: &Path) -> Result<Self, OciError> {
        let path = path.canonicalize().map_err(|source| OciError::Read { path: path.to_owned(), source })?;
        let file = path.join("config.json");
        let bytes = json::read_bytes(&file)?;
        let config = object(json::parse(&bytes, &file)?, &file)?;
        let original = path.join(OWN).join(ORIGINAL);
        // A call that was killed leaves the changed document.
        if is_changed(&config) && original.exists() {
            let bytes = json::read_bytes(&original)?;
            let config = object(json::parse(&bytes, &original)?, &original)?;
            return Ok(Self { path, bytes, config });
        }
        Ok(Self { path, bytes, config })
    }

    /// Whether it is the pause container of a pod, which holds namespaces and runs nothing.
    pub(super) fn is_sandbox(&self) -> bool {
        let names = ["io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"];
        let annotations = self.config.get("annotations");
        names.iter().any(|name| annotations.and_then(|annotations| annotations.get(name)) == Some(&json!("sandbox")))
    }

    /// Writes the request and the changed `config.json`.
    pub(super) fn change(&self, settings: &Settings) -> Result<Changed, OciError> {
        let file = self.path.join("config.json");
        let files = own_files()?;
        let mut config = self.config.clone();
        let request = change(&mut config, settings, &self.own(), &files).map_err(|error| error.of(&file))?;
        self.check_command(&request)?;
        let written = self.write(&file, &config, &request);
        if written.is_err() {
            self.remove_own();
        }
        written
    }

    fn check_command(&self, request: &Request) -> Result<(), OciError> {
        let path = self.config.get("root").and_then(|root| root.get("path")).and_then(Value::as_str);
        let mounts = self.config.get("mounts").and_then(Value::as_array).into_iter().flatten();
        let mounts = mounts.filter_map(|mount| mount.get("destination")?.as_str()).map(Path::new).collect();
        let Some(root) = path.and_then(|path| Root::open(&self.path.join(path), mounts)) else { return Ok(()) };
        let search = request.env.iter().rev().find(|variable| variable.name() == "PATH").and_then(EnvVar::value);
        root.check(&request.command[0], request.workdir.as_deref().unwrap_or("/"), search)
    }

    fn write(&self, file: &Path, config: &Map<String, Value>, request: &Request) -> Result<Changed, OciError> {
        let own = self.own();
        let write = |path: &Path| {
            let path = path.to_owned();
            move |source| OciError::Write { path, source }
        };
        let _ = fs::remove_dir_all(&own);
        let directory = |path: &Path| DirBuilder::new().mode(0o700).create(path).map_err(write(path));
        directory(&own)?;
        directory(&own.join("bin"))?;
        let path = own.join(REQUEST);
        let text = request.to_document().map_err(|error| write(&path)(std::io::Error::other(error)))?;
        atomic_write(&path, text.as_bytes()).map_err(write(&path))?;
        let original = own.join(ORIGINAL);
        atomic_write(&original, &self.bytes).map_err(write(&original))?;
        let changed = Changed { config: file.to_owned(), original };
        let text = Value::Object(config.clone()).to_string();
        atomic_write(file, text.as_bytes()).map_err(write(file))?;
        Ok(changed)
    }

    /// After a container that could not be created.
    pub(super) fn remove_own(&self) {
        let original = self.own().join(ORIGINAL);
        if original.exists() {
            let _ = fs::rename(original, self.path.join("config.json"));
        }
        let _ = fs::remove_dir_all(self.own());
    }

    fn own(&self) -> PathBuf {
        self.path.join(OWN)
    }
}

fn object(document: Value, path: &Path) -> Result<Map<String, Value>, OciError> {
    match document {
        Value::Object(object) => Ok(object),
        _ => Err(DocumentError::Field("the document", "an object").of(path)),
    }
}

fn is_changed(config: &Map<String, Value>) -> bool {
    let program = config.get("process").and_then(|process| process.pointer("/args/0"));
    program.and_then(Value::as_str) == Some(&*in_container("bin/coracle"))
}

/// The binary, the guest's kernel and PID 1 on the host, by their names in the container.
fn own_files() -> Result<Vec<(&'static str, PathBuf)>, OciError> {
    let directories = Directories::from_environment();
    let path = Path::new("/proc/self/exe");
    let binary = path.canonicalize().map_err(|source| OciError::Read { path: path.to_owned(), source })?;
    let mut files = vec![("coracle", binary)];
    for installed in [installed::KERNEL, installed::INIT] {
        let found = installed.find(None, &directories)?;
        let path = found.canonicalize().map_err(|source| OciError::Read { path: found, source })?;
        files.push((installed.file, path));
    }
    Ok(files)
}

/// Turns the container into a machine: `config` becomes the monitor's; returns the request for the workload.
fn change(
    config: &mut Map<String, Value>,
    settings: &Settings,
    own: &Path,
    files: &[(&'static str, PathBuf)],
) -> Result<Request, DocumentError> {
    let annotated = Annotated::of(config.get("annotations").and_then(Value::as_object))?;
    let hostname = config.get("hostname").and_then(Value::as_str).map(str::to_owned);
    let process = config.get_mut("process").and_then(Value::as_object_mut);
    let process = process.ok_or(DocumentError::Field("process", "an object"))?;
    let workload = Process::of(process)?;
    make_own(
        process,
        vec![in_container("bin/coracle"), "oci-monitor".to_owned(), in_container(REQUEST)],
        &CAPABILITIES,
    );
    let variable = |name, directory| format!("{name}={}", in_container(directory));
    let env = [
        "PATH=/usr/bin:/bin".to_owned(),
        variable("XDG_CACHE_HOME", "cache"),
        variable("XDG_DATA_HOME", "data"),
        variable("TMPDIR", ""),
    ];
    process.insert("env".into(), env.to_vec().into());

    let mounts = json::array(config, "mounts")?;
    mounts.push(json!({"destination": IN_CONTAINER, "type": "bind", "source": own, "options": ["bind", "rw", "nosuid", "nodev"]}));
    for (name, path) in files {
        let destination = in_container(&format!("bin/{name}"));
        mounts.push(json!({"destination": destination, "type": "bind", "source": path, "options": ["bind", "ro", "nosuid", "nodev"]}));
    }
    let is_sys_read_only = has_read_only(mounts, "/sys");
    let linux = json::object(config, "linux")?;
    check_namespaces(linux)?;
    let restricted = restricted_paths(linux)?;
    let privileged = restricted == RestrictedPaths::default() && !is_sys_read_only;
    let sysctl = sysctls(linux)?;
    // It is the workload's. The monitor has a list of its own.
    let profile = linux.remove("seccomp").filter(|profile| !profile.is_null());
    let seccomp = profile.map(|profile| seccomp::compile(&profile)).transpose()?.unwrap_or_default();
    // An engine gives a privileged container every device of the host; the guest has its own.
    let devices = json::array(linux, "devices")?;
    devices.retain(|device| !privileged || is_common(device));
    add_kvm(linux)?;
    let resources = json::object(linux, "resources")?;
    let limit = memory_limit(resources)?;
    let cpus = quota(resources)?;
    if let Some(pids) = resources.get_mut("pids").and_then(|pids| pids.get_mut("limit"))
        && let Some(limit @ 1..MIN_PIDS) = pids.as_i64()
    {
        *pids = limit.max(MIN_PIDS).into();
    }
    let hostname = hostname.filter(|name| !name.is_empty());
    Ok(Request {
        command: workload.args,
        attributes: Some(workload.attributes),
        seccomp,
        env: workload.env,
        workdir: Some(workload.cwd),
        user: Some(workload.user),
        hostname: hostname.map(|name| parse("hostname", &name)).transpose()?,
        sysctl,
        privileged,
        restricted_paths: Some(restricted),
        interactive: true,
        tty: workload.terminal,
        rootfs: Some("/".into()),
        keep_etc: true,
        memory: annotated.memory.or(limit).or(settings.memory),
        cpus: annotated.cpus.or(cpus).or(settings.cpus),
        name: Some(parse("name", MACHINE)?),
        run_dir: Some(in_container("run").into()),
        forward_stops: true,
        ..Request::default()
    })
}

fn check_namespaces(linux: &Map<String, Value>) -> Result<(), DocumentError> {
    let namespaces = linux.get("namespaces").and_then(Value::as_array);
    // `own` is this process's, which is the host's.
    let has = |kind: &str, own: &str| {
        let mut namespaces = namespaces.into_iter().flatten();
        let text = |namespace: &'_ Value, key: &str| namespace.get(key).and_then(Value::as_str).map(str::to_owned);
        let namespace = namespaces.find(|namespace| text(namespace, "type").as_deref() == Some(kind));
        namespace.is_some_and(|namespace| !text(namespace, "path").is_some_and(|path| is_same_file(&path, own)))
    };
    match (has("network", "/proc/self/ns/net"), has("pid", "/proc/self/ns/pid")) {
        (false, _) => Err(DocumentError::HostNetwork),
        (_, false) => Err(DocumentError::HostPid),
        _ => Ok(()),
    }
}

fn is_same_file(one: &str, other: &str) -> bool {
    let identity = |path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino())).ok();
    identity(one).is_some_and(|one| identity(other) == Some(one))
}

/// What the engine restricts of the kernel's file systems, which the guest has of its own. Other paths are restricted by the
/// delegate, in the tree that the guest gets. Without any (`--privileged`) `/proc` and `/sys` are complete.
fn restricted_paths(linux: &Map<String, Value>) -> Result<RestrictedPaths, DocumentError> {
    let below_kernels = |path: &String| ["/proc/", "/sys/"].iter().any(|directory| path.starts_with(directory));
    let paths = |key| {
        let paths = json::strings(linux, key)?.into_iter().filter(below_kernels);
        Ok(paths.filter(|path| !path.split('/').any(|part| part == "..")).collect())
    };
    Ok(RestrictedPaths { masked: paths("maskedPaths")?, read_only: paths("readonlyPaths")? })
}

fn has_read_only(mounts: &[Value], destination: &str) -> bool {
    let mut mounts = mounts.iter().filter(|mount| mount.get("destination") == Some(&json!(destination)));
    let is_ro = |options: &Value| options.as_array().is_some_and(|options| options.contains(&json!("ro")));
    mounts.any(|mount| mount.get("options").is_some_and(is_ro))
}

fn sysctls(linux: &Map<String, Value>) -> Result<Vec<Sysctl>, DocumentError> {
    let sysctls = linux.get("sysctl").and_then(Value::as_object).into_iter().flatten();
    sysctls
        .map(|(name, value)| match value.as_str() {
            Some(value) if sysctl::is_supported(name) => parse("sysctl", &format!("{name}={value}")),
            Some(_) => Err(DocumentError::Sysctl(name.clone())),
            None => Err(DocumentError::Field("linux.sysctl", "an object of strings")),
        })
        .collect()
}

/// Adds /dev/kvm, and the rule that allows it. Other devices are rejected.
fn add_kvm(linux: &mut Map<String, Value>) -> Result<(), DocumentError> {
    let devices = json::array(linux, "devices")?;
    if let Some(device) = devices.iter().find(|device| !is_common(device)) {
        let path = device.get("path").and_then(Value::as_str).unwrap_or_default();
        return Err(DocumentError::Device(path.to_owned()));
    }
    let (major, minor) = KVM;
    devices.retain(|device| device.get("path") != Some(&json!("/dev/kvm")));
    devices.push(
        json!({"path": "/dev/kvm", "type": "c", "major": major, "minor": minor, "fileMode": 0o600, "uid": 0, "gid": 0}),
    );
    let rules = json::array(json::object(linux, "resources")?, "devices")?;
    rules.push(json!({"allow": true, "type": "c", "major": major, "minor": minor, "access": "rw"}));
    Ok(())
}

fn is_common(device: &Value) -> bool {
    let name = device.get("path").and_then(Value::as_str).and_then(|path| path.strip_prefix("/dev/"));
    name.is_some_and(|name| COMMON_DEVICES.contains(&name))
}

/// The memory limit becomes the guest's memory, in whole MiB, and grows by what the monitor needs.
fn memory_limit(resources: &mut Map<String, Value>) -> Result<Option<MemorySize>, DocumentError> {
    let Some(memory) = resources.get_mut("memory").and_then(Value::as_object_mut) else { return Ok(None) };
    let Some(limit) = memory.get("limit").and_then(Value::as_u64).filter(|&limit| limit > 0) else { return Ok(None) };
    let mebibytes = (limit >> 20).max(64);
    let size = parse("memory limit", &format!("{mebibytes}m"))?;
    let grown = (mebibytes << 20) + OVERHEAD;
    // Memory and swap together.
    let swap = memory.get("swap").and_then(Value::as_u64).filter(|&swap| swap > 0);
    if let Some(swap) = swap {
        memory.insert("swap".into(), (grown + swap.saturating_sub(limit)).into());
    }
    memory.insert("limit".into(), grown.into());
    Ok(Some(size))
}

/// The CPU quota, rounded up to whole vCPUs. The control group keeps the quota itself.
fn quota(resources: &Map<String, Value>) -> Result<Option<CpuCount>, DocumentError> {
    let cpu = resources.get("cpu");
    let number = |name| cpu.and_then(|cpu| cpu.get(name)).and_then(Value::as_u64).filter(|&number| number > 0);
    let (Some(quota), Some(period)) = (number("quota"), number("period")) else { return Ok(None) };
    let count = quota.div_ceil(period).clamp(1, MAX_CPUS.into());
    parse("CPU quota", &count.to_string()).map(Some)
}

#[cfg(test)]
#[path = "bundle_tests.rs"]
mod tests;
