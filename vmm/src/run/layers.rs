// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Saves and restores the writable layer of a machine that is kept: `layer save`, `layer restore`.

use super::failure::{FailsAs as _, Failure};
use super::machine_files;
use crate::config::name::MachineName;
use crate::host::directories::Directories;
use crate::host::sparse_file;
use crate::host::system_error::Cannot as _;
use crate::host::watch;
use crate::state::end::EndReason;
use crate::state::kept::{KeptError, KeptMachine, KeptMachines};
use crate::state::machines::MachineInfo;
use crate::state::run_dir::RunDirectory;
use crate::state::saved_layers::{LayerCopy, SavedLayerError, SavedLayers};
use std::fs::File;
use std::path::Path;

/// The layers of one machine: that which it writes, and those that are saved.
#[derive(Debug)]
pub(crate) struct Layers<'a> {
    base: &'a Path,
    machine: &'a MachineInfo,
    kept: KeptMachine,
    saved: SavedLayers,
}

impl<'a> Layers<'a> {
    /// Those of `machine` below `base`.
    ///
    /// # Errors
    /// It is not kept.
    pub(crate) fn of(base: &'a Path, machine: &'a MachineInfo) -> Result<Self, Failure> {
        let name = &machine.name;
        let machines = KeptMachines::of(base, &Directories::from_environment()).fails_as(EndReason::HostError)?;
        if !machines.contains(name) {
            return Err(Failure::new(EndReason::ConfigError, KeptError::Missing(name.clone())));
        }
        let kept = machines.open(name);
        let saved = SavedLayers::of(name, &kept);
        Ok(Self { base, machine, kept, saved })
    }

    #[must_use]
    pub(crate) fn saved(&self) -> &SavedLayers {
        &self.saved
    }

    /// Saves the layer, of a machine that runs as it is at one moment, as `layer` or with a number. Returns the name.
    ///
    /// # Errors
    /// The name is taken, the guest does not answer, or the file system is full.
    pub(crate) fn save(&self, layer: Option<&MachineName>) -> Result<MachineName, Failure> {
        layer.map_or(Ok(()), |layer| self.saved.require_free(layer)).map_err(fails)?;
        // Before the layer is opened: if another machine takes the place of this one, the copy is gone.
        let copy = self.saved.begin_copy().map_err(fails)?;
        match self.machine.has_ended() {
            true => copy_file(&machine_files::open_layer(&self.machine.name, &self.kept)?, &copy)?,
            false => drop(machine_files::copy_layer(self.machine, copy.file(), false)?),
        }
        self.saved.keep(copy, layer).map_err(fails)
    }

    /// Makes a copy of the saved `layer` the layer of the machine, which has ended.
    ///
    /// # Errors
    /// The machine runs, nothing is saved with the name, or the file system is full. Then the layer is the old one.
    pub(crate) fn restore(&self, layer: &MachineName) -> Result<(), Failure> {
        let MachineInfo { name, status, .. } = self.machine;
        let saved = self.saved.open(layer).map_err(fails)?;
        if !self.machine.has_ended() {
            let error = format!("{name} is {}: stop it first", self.machine.state());
            return Err(Failure::new(EndReason::ConfigError, error));
        }
        let copy = self.saved.begin_copy().map_err(fails)?;
        copy_file(&saved, &copy)?;
        // It may still write how it ended.
        if let Some(process) = status.as_ref().and_then(|status| status.process().open()) {
            watch::wait_for_end(&process).fails_as(EndReason::HostError)?;
        }
        let _held = RunDirectory::hold(self.base, name).map_err(super::run_directory_failure)?;
        copy.restore(&self.kept).map_err(fails)
    }
}

fn copy_file(from: &File, copy: &LayerCopy) -> Result<(), Failure> {
    let size = from.metadata().map(|metadata| metadata.len());
    let copied = size.and_then(|size| sparse_file::copy(from, copy.file(), size));
    copied.cannot(format!("copy the layer to {}", copy.path().display())).fails_as(EndReason::HostError)
}

pub(crate) fn fails(error: SavedLayerError) -> Failure {
    let reason = match error {
        SavedLayerError::Missing { .. } | SavedLayerError::Taken { .. } => EndReason::ConfigError,
        SavedLayerError::File { .. } | SavedLayerError::Copy(_) => EndReason::HostError,
    };
    Failure::new(reason, error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A kept machine that has not run.
    fn machine(base: &Path) -> MachineInfo {
        let kept = KeptMachines::of(base, &Directories::default()).unwrap().open("web");
        fs::create_dir_all(kept.path()).unwrap();
        fs::write(kept.path().join("machine.json"), "{}").unwrap();
        fs::write(kept.layer(), "first").unwrap();
        MachineInfo::read(base, "web").unwrap()
    }

    #[test]
    fn layer_is_saved_and_restored_while_no_start_has_the_name() {
        let base = tempfile::tempdir().unwrap();
        let machine = machine(base.path());
        let layers = Layers::of(base.path(), &machine).unwrap();
        let name = layers.save(None).unwrap();
        fs::write(layers.kept.layer(), "second, and longer").unwrap();
        let starting = RunDirectory::claim(base.path(), "web", false).unwrap();
        let failure = layers.restore(&name).unwrap_err();
        assert_eq!(failure.reason(), EndReason::ConfigError);
        assert!(failure.message().starts_with("the name web is in use by process"), "{}", failure.message());
        assert_eq!(fs::read(layers.kept.layer()).unwrap(), b"second, and longer");
        drop(starting);
        layers.restore(&name).unwrap();
        assert_eq!(fs::read(layers.kept.layer()).unwrap(), b"first");
        assert!(!base.path().join("web").exists());
        assert_eq!(layers.saved().list().unwrap().len(), 1);
    }

    #[test]
    fn machine_that_runs_is_not_restored_and_one_that_is_not_kept_has_no_layers() {
        let base = tempfile::tempdir().unwrap();
        let mut machine = machine(base.path());
        let name = Layers::of(base.path(), &machine).unwrap().save(None).unwrap();
        (machine.is_created, machine.is_alive) = (false, true);
        let failure = Layers::of(base.path(), &machine).unwrap().restore(&name).unwrap_err();
        assert_eq!(failure.message(), "web is starting: stop it first");
        machine.name = "job".to_owned();
        let failure = Layers::of(base.path(), &machine).unwrap_err();
        assert!(failure.message().starts_with("no machine with the name job is kept"), "{}", failure.message());
    }
}
