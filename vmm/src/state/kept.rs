// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is kept of machines with a name: one directory each, which outlives the process and the run directory.
//!
//! | file | what |
//! |---|---|
//! | `machine.json` | [`KeptDocument`]; written last and removed first, so a directory without it is what a killed process left |
//! | `layer.ext4` | the writable layer, sparse |
//! | `root.img`, `root-1.img`... | the files of the root disk beneath it: links to the cache's, or copies on another file system |
//! | `status.json` | the last status; missing if the machine has never run |
//! | `layers` | [saved layers](super::saved_layers) |
//!
//! The process that holds the lock of the machine's run directory may change these files, but for `layers`.

use super::lifecycle::STATUS_FILE;
use crate::config::name::{MachineName, VolumeName};
use crate::config::request::Request;
use crate::config::root_format::RootFormatChoice;
use crate::config::volume::Mount;
use crate::host::atomic_write::{AtomicFile, atomic_write};
use crate::host::directories::{Directories, DirectoryError};
use crate::host::ext4::{self, FormatError};
use oci_image::ImageConfig;
use rustix::fs::{AtFlags, CWD, linkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The only version that is read and written.
const VERSION: u32 = 1;
const DOCUMENT: &str = "machine.json";
const LAYER: &str = "layer.ext4";
const LAYERS: &str = "layers";

#[derive(Debug, thiserror::Error)]
pub(crate) enum KeptError {
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error("cannot {verb} {path}")]
    File { verb: &'static str, path: PathBuf, source: io::Error },
    #[error("{path} is malformed")]
    Document { path: PathBuf, source: serde_json::Error },
    #[error("{path} has version {version}; this coracle reads version {VERSION}")]
    Version { path: PathBuf, version: u32 },
    #[error("cannot make the writable layer of {name}")]
    Format { name: String, source: FormatError },
    #[error(
        "the name {0} belongs to a machine that is kept: `coracle start {0}` runs it again, `coracle rm {0}` removes it"
    )]
    Taken(String),
    #[error(
        "the name {0} belongs to a machine that has never run: `coracle start {0}` runs it, `coracle rm {0}` removes it"
    )]
    Created(String),
    #[error("no machine with the name {0} is kept: only those of `create`, and of `run --name` without --rm")]
    Missing(String),
}

/// How a machine is started again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct KeptDocument {
    version: u32,
    /// Relative paths of the request begin there.
    pub(crate) directory: PathBuf,
    pub(crate) request: Request,
    pub(crate) image: KeptImage,
}

/// The image, as it was when the machine was made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct KeptImage {
    pub(crate) digest: String,
    /// Of its layers' contents. Empty in a document of an earlier version.
    #[serde(default)]
    pub(crate) chain_id: String,
    pub(crate) root_disk_digest: String,
    pub(crate) format: RootFormatChoice,
    pub(crate) config: ImageConfig,
}

/// The kept machines of one base of run directories; the directory need not exist.
#[derive(Clone, Debug)]
pub(crate) struct KeptMachines {
    directory: PathBuf,
}

/// One of them. A new one that was not confirmed is removed with the value.
#[derive(Debug)]
pub(crate) struct KeptMachine {
    path: PathBuf,
    is_confirmed: bool,
}

fn failed(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeptError {
    let path = path.to_owned();
    move |source| KeptError::File { verb, path, source }
}

impl KeptMachines {
    /// Those that belong to the run directories below `base`.
    ///
    /// # Errors
    /// There is no home directory, and the user is not root.
    pub(crate) fn of(base: &Path, directories: &Directories) -> Result<Self, DirectoryError> {
        Ok(Self { directory: directories.machines(base)? })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.path(name).join(DOCUMENT).symlink_metadata().is_ok()
    }

    /// Fails if `name` is kept.
    pub(crate) fn require_free(&self, name: &str) -> Result<(), KeptError> {
        if self.contains(name) { Err(KeptError::Taken(name.to_owned())) } else { Ok(()) }
    }

    /// Fails if `name` is kept and has never run.
    pub(crate) fn require_ended(&self, name: &str) -> Result<(), KeptError> {
        let is_created = self.contains(name) && !self.path(name).join(STATUS_FILE).exists();
        if is_created { Err(KeptError::Created(name.to_owned())) } else { Ok(()) }
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| self.contains(name)).collect()
    }

    /// # Errors
    /// It is not kept, or its document is damaged or of another version.
    pub(crate) fn read(&self, name: &str) -> Result<KeptDocument, KeptError> {
        let path = self.path(name).join(DOCUMENT);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(KeptError::Missing(name.to_owned())),
            read => read.map_err(failed("read", &path))?,
        };
        let document: KeptDocument =
            serde_json::from_slice(&bytes).map_err(|source| KeptError::Document { path: path.clone(), source })?;
        match document.version {
            VERSION => Ok(document),
            version => Err(KeptError::Version { path, version }),
        }
    }

    /// The volumes with a name that the machines have, each with the name of one of its machines.
    ///
    /// # Errors
    /// A document is damaged or of another version.
    pub(crate) fn volumes(&self) -> Result<BTreeMap<VolumeName, String>, KeptError> {
        let mut volumes = BTreeMap::new();
        for machine in self.names() {
            let document = match self.read(&machine) {
                // It was removed meanwhile.
                Err(KeptError::Missing(_)) => continue,
                document => document?,
            };
            let names = document.request.mounts().filter_map(|(_, mount)| match mount {
                Mount::Volume(volume) => volume.name.clone(),
                _ => None,
            });
            volumes.extend(names.map(|name| (name, machine.clone())));
        }
        Ok(volumes)
    }

    /// Opens one that is kept.
    #[must_use]
    pub(crate) fn open(&self, name: &str) -> KeptMachine {
        KeptMachine { path: self.path(name), is_confirmed: true }
    }

    /// Makes layer and root disk of a new one, which is kept once it is [published](KeptMachine::publish) and
    /// [confirmed](KeptMachine::confirm).
    ///
    /// # Errors
    /// A file cannot be made, or `mke2fs` is missing or fails.
    pub(crate) fn make<'f>(
        &self,
        name: &MachineName,
        root_disk: impl IntoIterator<Item = &'f File>,
        size: u64,
    ) -> Result<KeptMachine, KeptError> {
        let path = self.path(name.as_str());
        remove_directory(&path)?;
        DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(failed("make", &path))?;
        let machine = KeptMachine { path, is_confirmed: false };
        for (index, file) in root_disk.into_iter().enumerate() {
            link_or_copy(file, &machine.root_file(index))?;
        }
        let layer = machine.layer();
        let file = AtomicFile::create(&layer).map_err(failed("make", &layer))?;
        file.file().set_len(size).map_err(failed("make", &layer))?;
        ext4::format_with_journal(file.file(), size)
            .map_err(|source| KeptError::Format { name: name.to_string(), source })?;
        file.publish().map_err(failed("make", &layer))?;
        Ok(machine)
    }

    /// Removes what is kept of `name`, if anything is.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub(crate) fn remove(&self, name: &str) -> Result<(), KeptError> {
        remove_directory(&self.path(name))
    }
}

impl KeptMachine {
    pub(crate) fn layer(&self) -> PathBuf {
        self.path.join(LAYER)
    }

    /// The first file of the root disk.
    pub(crate) fn root(&self) -> PathBuf {
        self.root_file(0)
    }

    /// The other files of the root disk.
    pub(crate) fn more_root_files(&self) -> Vec<PathBuf> {
        (1..).map(|index| self.root_file(index)).take_while(|path| path.symlink_metadata().is_ok()).collect()
    }

    fn root_file(&self, index: usize) -> PathBuf {
        self.path.join(root_name(index))
    }

    /// The directory of the saved layers; it need not exist.
    pub(crate) fn saved_layers(&self) -> PathBuf {
        self.path.join(LAYERS)
    }

    /// Writes the document, from which on the name is taken.
    pub(crate) fn publish(&self, request: Request, image: KeptImage) -> Result<(), KeptError> {
        let directory = std::env::current_dir().map_err(failed("find", Path::new(".")))?;
        let document = KeptDocument { version: VERSION, directory, request, image };
        let path = self.path.join(DOCUMENT);
        let bytes =
            serde_json::to_vec(&document).map_err(|source| KeptError::Document { path: path.clone(), source })?;
        // It may hold secrets; the directory is closed to others, and the file is if it is copied.
        let write = || {
            let file = AtomicFile::create(&path)?;
            file.file().set_permissions(Permissions::from_mode(0o600))?;
            io::Write::write_all(&mut file.file(), &bytes)?;
            file.file().sync_data()?;
            file.publish()?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(failed("write", &path))
    }

    /// Leaves it there when this value is dropped.
    pub(crate) fn confirm(&mut self) {
        self.is_confirmed = true;
    }

    #[must_use]
    pub(crate) fn is_confirmed(&self) -> bool {
        self.is_confirmed
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The last status, for readers that find no run directory.
    pub(crate) fn status_path(&self) -> PathBuf {
        self.path.join(STATUS_FILE)
    }

    pub(crate) fn write_status(&self, line: &str) -> io::Result<()> {
        atomic_write(&self.status_path(), line.as_bytes())
    }
}

impl Drop for KeptMachine {
    fn drop(&mut self) {
        if !self.is_confirmed {
            let _ = remove_directory(&self.path);
        }
    }
}

/// The document first: what is left without it belongs to no machine. A confined thread may not look for other files; there are
/// some only if layers are saved, which are those of a machine that ran, or a process was killed while it wrote one.
fn remove_directory(path: &Path) -> Result<(), KeptError> {
    let remove = |name: &str| {
        let file = path.join(name);
        match fs::remove_file(&file) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            removed => removed.map(|()| true).map_err(failed("remove", &file)),
        }
    };
    for name in [DOCUMENT, LAYER, STATUS_FILE] {
        remove(name)?;
    }
    let mut index = 0;
    while remove(&root_name(index))? {
        index += 1;
    }
    let removed = match fs::remove_dir(path) {
        Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => fs::remove_dir_all(path),
        removed => removed,
    };
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(failed("remove", path)),
    }
}

/// Name of a file of the root disk.
fn root_name(index: usize) -> String {
    if index == 0 { "root.img".to_owned() } else { format!("root-{index}.img") }
}

fn link_or_copy(file: &File, path: &Path) -> Result<(), KeptError> {
    let open_file = format!("/proc/self/fd/{}", file.as_raw_fd());
    match linkat(CWD, &open_file, CWD, path, AtFlags::SYMLINK_FOLLOW) {
        Ok(()) => Ok(()),
        // Another file system, one without links, or a file that the cache has lost.
        Err(Errno::XDEV | Errno::PERM | Errno::MLINK | Errno::OPNOTSUPP | Errno::NOENT | Errno::ACCESS) => {
            let copy = || {
                let mut copy = AtomicFile::create(path)?;
                io::copy(&mut File::open(&open_file)?, &mut copy)?;
                copy.publish()
            };
            copy().map_err(failed("make", path))
        }
        Err(error) => Err(failed("make", path)(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> KeptImage {
        let config = ImageConfig { cmd: vec!["sh".into()], ..ImageConfig::default() };
        KeptImage {
            digest: "sha256:1".into(),
            chain_id: "sha256:3".into(),
            root_disk_digest: "sha256:2".into(),
            format: RootFormatChoice::Erofs,
            config,
        }
    }

    fn made(base: &Path) -> (KeptMachines, KeptMachine) {
        let machines = KeptMachines::of(base, &Directories::default()).unwrap();
        let root = base.join("root");
        fs::write(&root, "root disk").unwrap();
        let machine = machines.make(&"web".parse().unwrap(), [&File::open(&root).unwrap()], 16 << 20).unwrap();
        (machines, machine)
    }

    #[test]
    fn machine_is_kept_once_it_is_published_and_confirmed() {
        let base = tempfile::tempdir().unwrap();
        let (machines, mut machine) = made(base.path());
        assert!(!machines.contains("web") && machines.names().is_empty());
        assert!(matches!(machines.read("web"), Err(KeptError::Missing(_))));
        let volume = vec!["data:/data".parse().unwrap(), "/anonymous".parse().unwrap()];
        let request = Request { image: Some("oci:x".into()), volume, ..Request::default() };
        machine.publish(request.clone(), image()).unwrap();
        machine.confirm();
        assert!(matches!(machines.require_ended("web"), Err(KeptError::Created(_))));
        machine.write_status("{}").unwrap();
        drop(machine);
        machines.require_ended("web").unwrap();
        assert!(matches!(machines.require_free("web"), Err(KeptError::Taken(_))));
        let document = machines.read("web").unwrap();
        assert_eq!((document.request, document.image.config), (request, image().config));
        assert_eq!(fs::read(machines.open("web").root()).unwrap(), b"root disk");
        assert_eq!(machines.names(), ["web"]);
        assert_eq!(machines.volumes().unwrap(), BTreeMap::from([("data".parse().unwrap(), "web".into())]));
        machines.remove("web").unwrap();
        machines.remove("web").unwrap();
        assert!(!machines.path("web").exists());
    }

    #[test]
    fn unconfirmed_machine_is_removed_and_a_left_one_is_replaced() {
        let base = tempfile::tempdir().unwrap();
        let (machines, machine) = made(base.path());
        machine.publish(Request::default(), image()).unwrap();
        drop(machine);
        assert!(!machines.path("web").exists());
        let (_, killed) = made(base.path());
        std::mem::forget(killed);
        machines.require_ended("web").unwrap();
        fs::write(machines.path("web").join("layer.ext4.tmp"), "").unwrap();
        let (_, again) = made(base.path());
        assert!(again.layer().exists());
    }

    fn make(machines: &KeptMachines, files: &[File]) -> Result<KeptMachine, KeptError> {
        machines.make(&"web".parse().unwrap(), files, 16 << 20)
    }

    #[test]
    fn each_file_of_a_root_disk_is_linked_and_removed() {
        let base = tempfile::tempdir().unwrap();
        let machines = KeptMachines::of(base.path(), &Directories::default()).unwrap();
        let cached = |index: usize| base.path().join(format!("cached {index}"));
        let files: Vec<File> = (0..12)
            .map(|index| {
                fs::write(cached(index), index.to_string()).unwrap();
                File::open(cached(index)).unwrap()
            })
            .collect();
        let machine = make(&machines, &files).unwrap();
        (0..12).for_each(|index| fs::remove_file(cached(index)).unwrap());
        let contents = |path: PathBuf| fs::read_to_string(path).unwrap();
        assert_eq!(contents(machine.root()), "0");
        let expected: Vec<String> = (1..12).map(|index| index.to_string()).collect();
        assert_eq!(machine.more_root_files().into_iter().map(contents).collect::<Vec<_>>(), expected);
        // The cache has lost the files: they are copied.
        std::mem::forget(machine);
        let machine = make(&machines, &files[..2]).unwrap();
        assert_eq!(machine.more_root_files().into_iter().map(contents).collect::<Vec<_>>(), ["1"]);
        drop(machine);
        assert!(!machines.path("web").exists());
    }

    #[test]
    fn root_disk_with_a_file_that_cannot_be_copied_leaves_nothing() {
        let base = tempfile::tempdir().unwrap();
        let machines = KeptMachines::of(base.path(), &Directories::default()).unwrap();
        fs::write(base.path().join("file"), "root disk").unwrap();
        let files = ["file", "."].map(|name| File::open(base.path().join(name)).unwrap());
        let error = make(&machines, &files).unwrap_err().to_string();
        assert!(error.contains("root-1.img"), "{error}");
        assert!(!machines.path("web").exists());
    }

    #[test]
    fn machine_of_an_earlier_version_has_one_root_file_and_no_chain_id() {
        let base = tempfile::tempdir().unwrap();
        let (machines, mut machine) = made(base.path());
        machine.publish(Request::default(), image()).unwrap();
        machine.confirm();
        let path = machines.path("web").join(DOCUMENT);
        let text = fs::read_to_string(&path).unwrap().replace("\"chain_id\":\"sha256:3\",", "");
        fs::write(&path, text).unwrap();
        assert_eq!(machines.read("web").unwrap().image.chain_id, "");
        let kept = machines.open("web");
        assert_eq!((kept.root(), kept.more_root_files()), (machines.path("web").join("root.img"), vec![]));
        machines.remove("web").unwrap();
        assert!(!machines.path("web").exists());
    }

    #[test]
    fn document_of_another_version_is_rejected() {
        let base = tempfile::tempdir().unwrap();
        let (machines, mut machine) = made(base.path());
        machine.publish(Request::default(), image()).unwrap();
        machine.confirm();
        let path = machines.path("web").join(DOCUMENT);
        let text = fs::read_to_string(&path).unwrap().replace("\"version\":1,\"directory", "\"version\":2,\"directory");
        fs::write(&path, text).unwrap();
        assert!(matches!(machines.read("web"), Err(KeptError::Version { version: 2, .. })));
        fs::write(&path, "{").unwrap();
        assert!(matches!(machines.read("web"), Err(KeptError::Document { .. })));
    }
}
