// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `disk`: disks of a machine that runs.

use super::machines::{MachineArgument, connect, machine_failure, print_outcome};
use crate::api::server::Resize;
use crate::config::size::FileSize;
use crate::run::failure::Failure;
use clap::{Args, Subcommand};

/// Change the disks of running machines
#[derive(Debug, Args)]
pub(super) struct DiskArguments {
    #[command(subcommand)]
    verb: DiskVerb,
}

#[derive(Debug, Subcommand)]
enum DiskVerb {
    Resize(ResizeArguments),
}

/// Make a disk of --disk larger and print its size in bytes
///
/// With SIZE its file is extended by a hole first. Without SIZE the disk has the size that its file, or the host's block device,
/// has now. The guest sees the new capacity at once; a file system on the disk is made larger inside, for example by resize2fs.
/// A disk is not made smaller.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coracle disk resize web data 20g
  lvextend -L +10g vg/data && coracle disk resize web data")]
struct ResizeArguments {
    #[command(flatten)]
    machine: MachineArgument,
    /// Serial of the disk; the first --disk without one has disk0
    #[arg(value_name = "SERIAL")]
    serial: String,
    /// Bytes, or a number with the suffix k, m, g or t, in whole sectors of 512 bytes
    #[arg(value_name = "SIZE")]
    size: Option<FileSize>,
}

/// Executes the verb and returns the exit status.
pub(super) fn disk(arguments: &DiskArguments) -> u8 {
    match &arguments.verb {
        DiskVerb::Resize(arguments) => print_outcome(resize(arguments)),
    }
}

/// Returns the size of the disk.
fn resize(ResizeArguments { machine, serial, size }: &ResizeArguments) -> Result<u64, Failure> {
    let machine = machine.find()?;
    let asked = Resize { disk: serial.clone(), size: size.map(FileSize::bytes) };
    let resized = connect(&machine)?.request_of_workload::<Resize>("/v1/resize", &asked);
    let resized = resized.map_err(|error| machine_failure(&machine, error))?;
    Ok(resized.size.unwrap_or_default())
}
