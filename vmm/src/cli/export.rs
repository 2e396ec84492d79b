// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `export`: writes the files of a machine as a tar archive.

use super::machines::{self, RunDirArgument};
use super::save::OutputError;
use crate::host::atomic_write::AtomicFile;
use crate::host::terminal::is_terminal;
use crate::run::failure::{FailsAs as _, Failure};
use crate::run::machine_files;
use crate::state::end::EndReason;
use clap::{Args, ValueHint};
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

const WRITE_BUF_SIZE: usize = 256 << 10;

/// Write the files of a machine to a tar archive
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coracle export job | tar -t
  coracle export -o job.tar job; coracle import job.tar job:flat

The archive has the files of the image and what the machine has changed, \
without volumes and sockets. Of a machine that runs it has the files of one \
moment. One that has ended has to be kept (`coracle run --name`).")]
pub(super) struct ExportArguments {
    /// Name or container ID of a machine, or an unambiguous beginning
    #[arg(value_name = "MACHINE")]
    machine: String,
    /// Where the archive is written [default: standard output]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    output: Option<PathBuf>,
    #[command(flatten)]
    run_dir: RunDirArgument,
}

/// Writes the archive and returns the exit status.
pub(super) fn export(arguments: &ExportArguments) -> u8 {
    machines::status(try_export(arguments))
}

fn try_export(arguments: &ExportArguments) -> Result<(), Failure> {
    if arguments.output.is_none() && is_terminal(io::stdout()) {
        let error = "export: standard output is a terminal; give a file with `-o FILE` or a redirection";
        return Err(Failure::new(EndReason::ConfigError, error));
    }
    let machine = arguments.run_dir.find(&arguments.machine)?;
    let tree = machine_files::open(&arguments.run_dir.absolute_path()?, &machine, false)?.tree;
    let write = |output: &mut dyn Write| {
        let written = tree.write_archive(BufWriter::with_capacity(WRITE_BUF_SIZE, output));
        written.map_err(|error| machine_files::failed(&machine, error))
    };
    let Some(path) = &arguments.output else {
        let mut output = io::stdout().lock();
        return write(&mut output).map(drop);
    };
    let failed = |source| OutputError { path: path.clone(), source };
    let mut output = AtomicFile::create(path).map_err(failed).fails_as(EndReason::HostError)?;
    write(&mut output)?;
    output.publish().map_err(failed).fails_as(EndReason::HostError)
}
