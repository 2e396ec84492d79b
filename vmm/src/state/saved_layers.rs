// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The saved layers of a machine that is kept: sparse files in a directory of what is kept of it, each with the name that the
//! user gave. One that is being copied is in a directory with a name of its own, and gets its place by a rename when it is
//! complete. So a process that is killed changes nothing, and the next copy removes what it left.

use super::kept::KeptMachine;
use crate::config::name::MachineName;
use crate::host::partial_directory::PartialDirectory;
use crate::host::system_error::SystemError;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// In the directory of a copy that is not complete.
const COPY: &str = "layer.ext4";

#[derive(Debug, thiserror::Error)]
pub(crate) enum SavedLayerError {
    #[error("cannot {verb} {path}")]
    File { verb: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Copy(#[from] SystemError),
    #[error("{machine} has no saved layer {layer}")]
    Missing { machine: String, layer: MachineName },
    #[error("{machine} has a saved layer {layer}: `coracle layer rm {machine} {layer}` removes it")]
    Taken { machine: String, layer: MachineName },
}

/// The saved layers of one machine.
#[derive(Debug)]
pub(crate) struct SavedLayers {
    machine: String,
    directory: PathBuf,
}

#[derive(Debug)]
pub(crate) struct SavedLayer {
    pub(crate) name: MachineName,
    pub(crate) path: PathBuf,
    pub(crate) saved: SystemTime,
    /// Space on the host, blocks that are shared included.
    pub(crate) bytes: u64,
}

/// A copy of a layer that is not complete. It is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct LayerCopy {
    file: File,
    partial: PartialDirectory,
}

fn failed(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SavedLayerError {
    let path = path.to_owned();
    move |source| SavedLayerError::File { verb, path, source }
}

impl SavedLayers {
    /// Those of `kept`, the machine with the name `machine`.
    #[must_use]
    pub(crate) fn of(machine: &str, kept: &KeptMachine) -> Self {
        Self { machine: machine.to_owned(), directory: kept.saved_layers() }
    }

    fn path(&self, layer: &MachineName) -> PathBuf {
        self.directory.join(layer.as_str())
    }

    fn missing(&self, layer: &MachineName) -> SavedLayerError {
        SavedLayerError::Missing { machine: self.machine.clone(), layer: layer.clone() }
    }

    fn taken(&self, layer: &MachineName) -> SavedLayerError {
        SavedLayerError::Taken { machine: self.machine.clone(), layer: layer.clone() }
    }

    /// Checks that no layer has the name, before one is copied.
    ///
    /// # Errors
    /// One has it.
    pub(crate) fn require_free(&self, layer: &MachineName) -> Result<(), SavedLayerError> {
        if self.path(layer).symlink_metadata().is_ok() { Err(self.taken(layer)) } else { Ok(()) }
    }

    /// Begins a copy, to an empty file. What killed processes left is removed. A machine that is removed takes the copy with it.
    ///
    /// # Errors
    /// What is kept of the machine is gone or cannot be written.
    pub(crate) fn begin_copy(&self) -> Result<LayerCopy, SavedLayerError> {
        match DirBuilder::new().mode(0o700).create(&self.directory) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => made.map_err(failed("make", &self.directory))?,
        }
        let partial = PartialDirectory::create(&self.directory.join("copy"))?;
        Ok(LayerCopy { file: partial.file(COPY)?, partial })
    }

    /// Keeps a copy that is complete, with the name `layer`, else with the number above all names that are numbers. Returns the
    /// name.
    ///
    /// # Errors
    /// The name is taken, or the file system is full.
    pub(crate) fn keep(&self, copy: LayerCopy, layer: Option<&MachineName>) -> Result<MachineName, SavedLayerError> {
        copy.sync()?;
        if let Some(layer) = layer {
            return if self.give_name(&copy, layer)? { Ok(layer.clone()) } else { Err(self.taken(layer)) };
        }
        let number = |layer: &SavedLayer| layer.name.as_str().parse::<u32>().ok();
        let highest = self.list()?.iter().filter_map(number).max().unwrap_or_default();
        for number in u64::from(highest) + 1.. {
            let layer = number.to_string().parse().expect("a number is a valid name");
            // Another process may have taken it just now.
            if self.give_name(&copy, &layer)? {
                return Ok(layer);
            }
        }
        unreachable!("there are more numbers than files")
    }

    /// Returns whether the name was free.
    fn give_name(&self, copy: &LayerCopy, layer: &MachineName) -> Result<bool, SavedLayerError> {
        let path = self.path(layer);
        match renameat_with(CWD, copy.path(), CWD, &path, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => return Ok(false),
            renamed => renamed.map_err(|error| failed("make", &path)(error.into()))?,
        }
        sync_directory(&self.directory)?;
        Ok(true)
    }

    /// # Errors
    /// No layer has this name.
    pub(crate) fn open(&self, layer: &MachineName) -> Result<File, SavedLayerError> {
        let path = self.path(layer);
        match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Err(self.missing(layer)),
            opened => opened.map_err(failed("open", &path)),
        }
    }

    /// All of them, those that were saved last first.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(crate) fn list(&self) -> Result<Vec<SavedLayer>, SavedLayerError> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed("read", &self.directory))?,
        };
        let mut layers = Vec::new();
        for entry in entries {
            layers.extend(describe(entry.map_err(failed("read", &self.directory))?.path()));
        }
        layers
            .sort_by(|one, other| other.saved.cmp(&one.saved).then_with(|| one.name.as_str().cmp(other.name.as_str())));
        Ok(layers)
    }

    /// # Errors
    /// No layer has this name, or the directory cannot be written.
    pub(crate) fn remove(&self, layer: &MachineName) -> Result<(), SavedLayerError> {
        let path = self.path(layer);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Err(self.missing(layer)),
            removed => removed.map_err(failed("remove", &path)),
        }
    }
}

impl LayerCopy {
    #[must_use]
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    #[must_use]
    pub(crate) fn path(&self) -> PathBuf {
        self.partial.path().join(COPY)
    }

    /// Makes the copy, which is complete, the layer of the machine `kept`. The caller
    /// [holds](super::run_dir::RunDirectory::hold) the machine's run directory.
    ///
    /// # Errors
    /// The machine was removed meanwhile, or the file system is full. The layer is the old one.
    pub(crate) fn restore(self, kept: &KeptMachine) -> Result<(), SavedLayerError> {
        self.sync()?;
        let layer = kept.layer();
        fs::rename(self.path(), &layer).map_err(failed("replace", &layer))?;
        sync_directory(kept.path())
    }

    /// What has its place survives a crash of the host.
    fn sync(&self) -> Result<(), SavedLayerError> {
        self.file.sync_data().map_err(failed("write", &self.path()))
    }
}

fn sync_directory(path: &Path) -> Result<(), SavedLayerError> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(failed("write", path))
}

/// A copy that is not complete has no valid name.
fn describe(path: PathBuf) -> Option<SavedLayer> {
    let name = path.file_name()?.to_str()?.parse().ok()?;
    let metadata = path.symlink_metadata().ok().filter(fs::Metadata::is_file)?;
    let saved = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    Some(SavedLayer { name, path, saved, bytes: metadata.blocks() * 512 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::directories::Directories;
    use crate::state::kept::KeptMachines;
    use std::io::Write as _;
    use std::time::Duration;

    fn machine(base: &Path) -> (KeptMachine, SavedLayers) {
        let kept = KeptMachines::of(base, &Directories::default()).unwrap().open("web");
        fs::create_dir_all(kept.path()).unwrap();
        fs::write(kept.layer(), "layer").unwrap();
        let layers = SavedLayers::of("web", &kept);
        (kept, layers)
    }

    fn name(text: &str) -> MachineName {
        text.parse().unwrap()
    }

    fn copy(layers: &SavedLayers, content: &str) -> LayerCopy {
        let copy = layers.begin_copy().unwrap();
        copy.file().write_all(content.as_bytes()).unwrap();
        copy
    }

    fn entries(directory: &Path) -> usize {
        fs::read_dir(directory).unwrap().count()
    }

    #[test]
    fn layer_has_its_name_once_and_until_it_is_removed() {
        let base = tempfile::tempdir().unwrap();
        let (_kept, layers) = machine(base.path());
        assert!(layers.list().unwrap().is_empty());
        layers.require_free(&name("clean")).unwrap();
        let begun = copy(&layers, "one");
        assert!(layers.list().unwrap().is_empty(), "it is not complete");
        assert_eq!(layers.keep(begun, Some(&name("clean"))).unwrap(), name("clean"));
        assert!(matches!(layers.require_free(&name("clean")), Err(SavedLayerError::Taken { .. })));
        let error = layers.keep(copy(&layers, "two"), Some(&name("clean"))).unwrap_err();
        assert_eq!(error.to_string(), "web has a saved layer clean: `coracle layer rm web clean` removes it");
        assert_eq!(fs::read(layers.path(&name("clean"))).unwrap(), b"one");
        assert_eq!(entries(&layers.directory), 1, "what was not kept is removed");
        layers.remove(&name("clean")).unwrap();
        for missing in [layers.remove(&name("clean")), layers.open(&name("clean")).map(drop)] {
            assert_eq!(missing.unwrap_err().to_string(), "web has no saved layer clean");
        }
    }

    #[test]
    fn layer_without_a_name_gets_the_next_number() {
        let base = tempfile::tempdir().unwrap();
        let (_kept, layers) = machine(base.path());
        let keep = |given: Option<&str>| layers.keep(copy(&layers, "x"), given.map(name).as_ref()).unwrap();
        for (given, kept) in [(None, "1"), (Some("clean"), "clean"), (Some("7"), "7"), (None, "8")] {
            assert_eq!(keep(given), name(kept));
        }
        layers.remove(&name("7")).unwrap();
        assert_eq!(keep(None), name("9"));
        for above in [u32::MAX.to_string(), (u64::from(u32::MAX) + 1).to_string()] {
            keep(Some(&above));
        }
        assert_eq!(keep(None), name(&(u64::from(u32::MAX) + 2).to_string()), "the first free number");
    }

    #[test]
    fn list_begins_with_what_was_saved_last() {
        let base = tempfile::tempdir().unwrap();
        let (_kept, layers) = machine(base.path());
        let now = SystemTime::now();
        for (age, layer) in [(9, "old"), (1, "new"), (5, "middle")] {
            layers.keep(copy(&layers, "x"), Some(&name(layer))).unwrap();
            let file = File::options().write(true).open(layers.path(&name(layer))).unwrap();
            file.set_modified(now - Duration::from_secs(age)).unwrap();
        }
        let listed = layers.list().unwrap();
        assert_eq!(listed.iter().map(|layer| layer.name.as_str()).collect::<Vec<_>>(), ["new", "middle", "old"]);
        assert!(listed[0].bytes >= 512 && listed[0].saved == now - Duration::from_secs(1));
    }

    #[test]
    fn restore_replaces_the_layer_when_the_copy_is_complete() {
        let base = tempfile::tempdir().unwrap();
        let (kept, layers) = machine(base.path());
        drop(copy(&layers, "half"));
        std::mem::forget(copy(&layers, "of a process that is alive"));
        let killed = layers.directory.join(".copy.0123456789ab.partial");
        fs::create_dir(&killed).unwrap();
        fs::write(killed.join(COPY), "of a killed process").unwrap();
        let complete = copy(&layers, "saved");
        assert_eq!(fs::read(kept.layer()).unwrap(), b"layer");
        complete.restore(&kept).unwrap();
        assert_eq!(fs::read(kept.layer()).unwrap(), b"saved");
        assert!(!killed.exists());
        assert_eq!(entries(&layers.directory), 1, "of the process that is alive");
    }

    #[test]
    fn copy_of_a_removed_machine_is_not_kept() {
        let base = tempfile::tempdir().unwrap();
        let (kept, layers) = machine(base.path());
        let begun = [copy(&layers, "x"), copy(&layers, "y")];
        let machines = KeptMachines::of(base.path(), &Directories::default()).unwrap();
        machines.remove("web").unwrap();
        assert!(layers.begin_copy().is_err() && !kept.path().exists());
        // Another machine has the name now.
        let (_, others) = machine(base.path());
        drop(copy(&others, "z"));
        let [one, other] = begun;
        assert!(layers.keep(one, Some(&name("clean"))).is_err() && other.restore(&kept).is_err());
        assert_eq!(fs::read(kept.layer()).unwrap(), b"layer");
        assert_eq!(entries(&layers.directory), 0);
    }
}
