// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `diff`: how the files of a machine differ from its image.

use super::machines::{self, RunDirArgument};
use crate::run::failure::Failure;
use crate::run::machine_files;
use clap::Args;
use oci_image::ChangeKind;
use std::io::{self, BufWriter, ErrorKind, Write as _};

/// List the files that a machine has added, changed and deleted
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  coracle run --name job alpine rm /etc/motd; coracle diff job

The lines are those of `docker diff`: A for what was added, C for what was \
changed, or has a change in it, D for what was deleted. Of a machine that runs \
they are of one moment. One that has ended has to be kept (`coracle run --name`).")]
pub(super) struct DiffArguments {
    /// Name or container ID of a machine, or an unambiguous beginning
    #[arg(value_name = "MACHINE")]
    machine: String,
    #[command(flatten)]
    run_dir: RunDirArgument,
}

/// Prints the changes and returns the exit status.
pub(super) fn diff(arguments: &DiffArguments) -> u8 {
    machines::status(print_changes(arguments))
}

fn print_changes(arguments: &DiffArguments) -> Result<(), Failure> {
    let machine = arguments.run_dir.find(&arguments.machine)?;
    let tree = machine_files::open(&arguments.run_dir.absolute_path()?, &machine, false)?.tree;
    let mut output = BufWriter::new(io::stdout().lock());
    let mut print = |kind, path: &[u8]| {
        let letter = match kind {
            ChangeKind::Added => "A",
            ChangeKind::Changed => "C",
            ChangeKind::Deleted => "D",
        };
        output.write_all(&[letter.as_bytes(), b" /", path, b"\n"].concat())
    };
    let listed = tree.changes(&mut print);
    match listed.and_then(|()| Ok(output.flush()?)) {
        // It is no error if the reader has closed the pipe.
        Err(error) if error.write_kind() == Some(ErrorKind::BrokenPipe) => Ok(()),
        listed => listed.map_err(|error| machine_files::failed(&machine, error)),
    }
}
