// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `volume`: docker's group of the verbs for volumes.

use super::list::{ListArguments, Listed};
use super::machines::{json_text, print, print_each};
use super::prune::confirm;
use super::words;
use crate::config::name::VolumeName;
use crate::config::rfc3339;
use crate::config::size::DiskSize;
use crate::host::directories::Directories;
use crate::run::failure::{self, FailsAs as _, Failure};
use crate::state::end::EndReason;
use crate::state::kept::KeptMachines;
use crate::state::volumes::{StoredVolume, VolumeError, Volumes};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Manage volumes, the directories that outlive machines
#[derive(Debug, Args)]
pub(super) struct VolumeArguments {
    #[command(subcommand)]
    verb: VolumeVerb,
}

#[derive(Debug, Subcommand)]
enum VolumeVerb {
    Create(CreateArguments),
    /// List volumes
    #[command(visible_alias = "list")]
    Ls(ListArguments),
    Inspect(InspectArguments),
    #[command(visible_alias = "remove")]
    Rm(RmArguments),
    Prune(PruneArguments),
}

/// Make a volume and print its name
#[derive(Debug, Args)]
struct CreateArguments {
    /// Name of the volume [default: a random name]
    #[arg(value_name = "NAME")]
    name: Option<VolumeName>,
    /// Size of its file system, which takes space as files are written [default: 8g]
    #[arg(short, long, value_name = "SIZE")]
    size: Option<DiskSize>,
}

/// Print what volumes are, as JSON
#[derive(Debug, Args)]
struct InspectArguments {
    /// The volumes
    #[arg(required = true, value_name = "NAME")]
    names: Vec<VolumeName>,
}

/// Remove volumes and everything in them
#[derive(Debug, Args)]
struct RmArguments {
    /// The volumes
    #[arg(required = true, value_name = "NAME")]
    names: Vec<VolumeName>,
    /// Ignore those that do not exist
    #[arg(short, long)]
    force: bool,
}

/// Remove volumes with a random name that no machine has
#[derive(Debug, Args)]
struct PruneArguments {
    /// Remove volumes with a name of the user's, too
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// Executes the verb and returns the exit status.
pub(super) fn volume(arguments: &VolumeArguments) -> u8 {
    let directories = Directories::from_environment();
    let outcome =
        directories.volumes().fails_as(EndReason::ConfigError).map(Volumes::open).and_then(|volumes| match &arguments
            .verb
        {
            VolumeVerb::Create(arguments) => create(&volumes, arguments),
            VolumeVerb::Ls(arguments) => ls(&volumes, arguments),
            VolumeVerb::Inspect(arguments) => Ok(inspect(&volumes, &arguments.names)),
            VolumeVerb::Rm(arguments) => Ok(rm(&volumes, &of_kept_machines(&directories)?, arguments)),
            VolumeVerb::Prune(arguments) => prune(&volumes, &of_kept_machines(&directories)?, arguments),
        });
    outcome.unwrap_or_else(|failure| failure::fail(&failure))
}

fn create(volumes: &Volumes, arguments: &CreateArguments) -> Result<u8, Failure> {
    let name = arguments.name.clone().map_or_else(VolumeName::random, Ok).fails_as(EndReason::HostError)?;
    let is_new = volumes.create(&name, arguments.size.unwrap_or_default()).map_err(fails)?;
    if let Some(size) = arguments.size.filter(|_| !is_new) {
        let there = volumes.find(&name).map_err(fails)?;
        if there.size != size.bytes() {
            let error = format!("volume {name} exists and has {} bytes", there.size);
            return Err(Failure::new(EndReason::ConfigError, error));
        }
    }
    print(&format!("{name}\n"));
    Ok(0)
}

fn ls(volumes: &Volumes, arguments: &ListArguments) -> Result<u8, Failure> {
    arguments.print(&volumes.list().map_err(fails)?);
    Ok(0)
}

impl Listed<3> for StoredVolume {
    const TITLES: [&'static str; 3] = ["VOLUME NAME", "SIZE", "USED"];

    fn name(&self) -> String {
        self.name.to_string()
    }

    fn row(&self) -> [String; 3] {
        [self.name.to_string(), words::decimal_size(self.size), words::decimal_size(self.used)]
    }

    fn describe(&self) -> Value {
        json!({
            "Name": self.name.as_str(),
            "CreatedAt": self.created.map(rfc3339::format),
            "File": self.path.display().to_string(),
            "Size": self.size,
            "Used": self.used,
        })
    }
}

fn inspect(volumes: &Volumes, names: &[VolumeName]) -> u8 {
    let (mut found, mut status) = (Vec::new(), 0);
    for name in names {
        match volumes.find(name).map_err(fails) {
            Ok(volume) => found.push(volume.describe()),
            Err(failure) => status = failure::fail(&failure),
        }
    }
    print(&json_text(&found));
    status
}

/// The volumes of machines that are kept, with the machine's name.
fn of_kept_machines(directories: &Directories) -> Result<BTreeMap<VolumeName, String>, Failure> {
    let machines = KeptMachines::of(&directories.run(), directories).fails_as(EndReason::ConfigError)?;
    machines.volumes().fails_as(EndReason::HostError)
}

fn rm(volumes: &Volumes, of_machines: &BTreeMap<VolumeName, String>, arguments: &RmArguments) -> u8 {
    print_each(arguments.names.iter().map(|name| match volumes.remove(name, of_machines) {
        Ok(_) => Ok(Some(name.to_string())),
        Err(VolumeError::Missing(_)) if arguments.force => Ok(None),
        Err(error) => Err(fails(error)),
    }))
}

fn prune(
    volumes: &Volumes,
    of_machines: &BTreeMap<VolumeName, String>,
    arguments: &PruneArguments,
) -> Result<u8, Failure> {
    let what = if arguments.all {
        "all volumes that no machine has"
    } else {
        "all volumes with a random name that no machine has"
    };
    if !confirm(arguments.force, "volume prune", what)? {
        return Ok(0);
    }
    let mut space = 0;
    for StoredVolume { name, .. } in volumes.list().map_err(fails)? {
        if !arguments.all && !name.is_random() {
            continue;
        }
        match volumes.remove(&name, of_machines) {
            Ok(used) => {
                space += used;
                print(&format!("{name}\n"));
            }
            // A machine has it, or another process removed it.
            Err(VolumeError::InUse(_) | VolumeError::OfMachine { .. } | VolumeError::Missing(_)) => {}
            Err(error) => return Err(fails(error)),
        }
    }
    print(&format!("Total reclaimed space: {}\n", words::decimal_size(space)));
    Ok(0)
}

fn fails(error: VolumeError) -> Failure {
    let reason = match error {
        VolumeError::InUse(_) | VolumeError::OfMachine { .. } | VolumeError::Missing(_) => EndReason::ConfigError,
        VolumeError::File { .. } | VolumeError::Format { .. } => EndReason::HostError,
    };
    Failure::new(reason, error)
}
