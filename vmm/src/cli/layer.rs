// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `layer`: saved layers of a machine that is kept.

use super::list::{ListArguments, Listed};
use super::machines::{self, MachineArgument, print_each, print_outcome};
use super::words;
use crate::config::name::MachineName;
use crate::config::rfc3339;
use crate::run::failure::{self, Failure};
use crate::run::layers::{Layers, fails};
use crate::state::saved_layers::SavedLayer;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

/// Save, list and restore the writable layer of a machine that is kept
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  coracle layer save web before; coracle exec web apt-get -y upgrade
  coracle stop web; coracle layer restore web before; coracle start web

A saved layer holds what the machine has written, and nothing of its memory; \
`coracle snapshot` saves a machine that runs. It takes space as it differs, \
where the file system can share blocks. `coracle rm` of the machine removes it.")]
pub(super) struct LayerArguments {
    #[command(subcommand)]
    verb: LayerVerb,
}

#[derive(Debug, Subcommand)]
enum LayerVerb {
    Save(SaveArguments),
    #[command(visible_alias = "list")]
    Ls(LsArguments),
    Restore(RestoreArguments),
    #[command(visible_alias = "remove")]
    Rm(RmArguments),
}

/// Save the layer of a machine and print the name of what was saved
///
/// Of a machine that runs or is paused the layer is saved as it is at one moment: processes that write wait until it is copied.
#[derive(Debug, Args)]
struct SaveArguments {
    #[command(flatten)]
    machine: MachineArgument,
    /// Name of the saved layer [default: the next number]
    #[arg(value_name = "NAME")]
    name: Option<MachineName>,
}

/// List the saved layers of a machine, those that were saved last first
#[derive(Debug, Args)]
struct LsArguments {
    #[command(flatten)]
    machine: MachineArgument,
    #[command(flatten)]
    list: ListArguments,
}

/// Make a saved layer the layer of a machine that has ended
///
/// What the machine has written since is lost, unless it is saved as well. The next start finds what was saved.
#[derive(Debug, Args)]
struct RestoreArguments {
    #[command(flatten)]
    machine: MachineArgument,
    /// Name of the saved layer
    #[arg(value_name = "NAME")]
    name: MachineName,
}

/// Remove saved layers of a machine
#[derive(Debug, Args)]
struct RmArguments {
    #[command(flatten)]
    machine: MachineArgument,
    /// Names of the saved layers
    #[arg(value_name = "NAME", required = true)]
    names: Vec<MachineName>,
}

/// Executes the verb and returns the exit status.
pub(super) fn layer(arguments: &LayerArguments) -> u8 {
    match &arguments.verb {
        LayerVerb::Save(SaveArguments { machine, name }) => {
            print_outcome(with_layers(machine, |layers| layers.save(name.as_ref())))
        }
        LayerVerb::Ls(LsArguments { machine, list }) => {
            let layers = with_layers(machine, |layers| layers.saved().list().map_err(fails));
            machines::status(layers.map(|layers| list.print(&layers)))
        }
        LayerVerb::Restore(RestoreArguments { machine, name }) => {
            print_outcome(with_layers(machine, |layers| layers.restore(name)).map(|()| name))
        }
        LayerVerb::Rm(RmArguments { machine, names }) => {
            let removed = with_layers(machine, |layers| {
                let remove = |name: &MachineName| layers.saved().remove(name).map(|()| Some(name.to_string()));
                Ok(print_each(names.iter().map(|name| remove(name).map_err(fails))))
            });
            removed.unwrap_or_else(|failure| failure::fail(&failure))
        }
    }
}

fn with_layers<T>(
    machine: &MachineArgument,
    act: impl FnOnce(&Layers<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let (base, machine) = (machine.base()?, machine.find()?);
    act(&Layers::of(&base, &machine)?)
}

impl Listed<3> for SavedLayer {
    const TITLES: [&'static str; 3] = ["LAYER NAME", "SAVED", "SIZE"];

    fn name(&self) -> String {
        self.name.to_string()
    }

    fn row(&self) -> [String; 3] {
        [self.name.to_string(), rfc3339::format(self.saved), words::decimal_size(self.bytes)]
    }

    fn describe(&self) -> Value {
        json!({
            "name": self.name,
            "path": self.path.display().to_string(),
            "bytes": self.bytes,
            "saved": rfc3339::format(self.saved),
        })
    }
}
