// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `cp`: copies files out of a machine.

use super::machines::{self, RunDirArgument};
use crate::host::terminal::is_terminal;
use crate::run::copy::Copied;
use crate::run::failure::Failure;
use crate::state::end::EndReason;
use clap::{Args, ValueHint};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Copy files out of a machine
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coracle cp job:/var/log/app.log .
  coracle cp job:/srv/. copy
  coracle cp job:/etc - | tar -t

As with `docker cp`, the source is copied into a directory that is there, and \
else gets the name of the destination. The files are the caller's; set-id bits, \
extended attributes, devices and FIFOs are not copied to the host, and an \
archive has them. What is mounted, volumes included, is not copied. A machine \
that has ended has to be kept (`coracle run --name`).")]
pub(super) struct CpArguments {
    /// MACHINE:PATH; PATH may end in `/.` for what is in a directory
    #[arg(value_name = "SOURCE", value_hint = ValueHint::AnyPath)]
    source: OsString,
    /// A path of the host, or `-` for a tar archive on standard output
    #[arg(value_name = "DESTINATION", value_hint = ValueHint::AnyPath)]
    destination: OsString,
    /// Copy what a symbolic link names
    #[arg(short = 'L', long)]
    follow_link: bool,
    #[command(flatten)]
    run_dir: RunDirArgument,
}

/// Copies and returns the exit status.
pub(super) fn cp(arguments: &CpArguments) -> u8 {
    machines::status(try_cp(arguments))
}

fn try_cp(arguments: &CpArguments) -> Result<(), Failure> {
    let CpArguments { source, destination, follow_link, run_dir } = arguments;
    let (machine, path) = match (split(source), split(destination)) {
        (Some(source), None) => source,
        (None, Some((machine, path))) => {
            let machine = run_dir.find(&machine)?;
            return Err(refused(&into_machine(&machine.name, machine.has_ended(), path)));
        }
        (Some(_), Some(_)) => return Err(refused("cp: files cannot be copied from one machine to another")),
        (None, None) => return Err(refused("cp: the source has to be MACHINE:PATH")),
    };
    let to_archive = destination == "-";
    if to_archive && is_terminal(io::stdout()) {
        return Err(refused("cp: standard output is a terminal; give a directory or a redirection"));
    }
    let machine = run_dir.find(&machine)?;
    let copied = Copied::find(&run_dir.absolute_path()?, machine, path.as_bytes(), *follow_link)?;
    match to_archive {
        true => copied.to_archive(io::stdout().lock()),
        false => copied.to_host(Path::new(destination)),
    }
}

/// The layer of an ended machine is written by its kernel only.
fn into_machine(name: &str, has_ended: bool, path: &OsStr) -> String {
    let write = format!("`tar -c FILE | coracle exec -i {name} tar -x -C {}`", path.display());
    match has_ended {
        true => format!(
            "{name} has ended, and files are copied into running machines only: `coracle start {name}`, then {write}"
        ),
        false => format!("{name}: use {write}"),
    }
}

fn refused(error: &str) -> Failure {
    Failure::new(EndReason::ConfigError, error)
}

/// Machine and path, as docker tells them from a path of the host: `./a:b` and `/a:b` are such paths.
fn split(argument: &OsStr) -> Option<(String, &OsStr)> {
    let bytes = argument.as_bytes();
    let colon = bytes.iter().position(|byte| *byte == b':').filter(|_| !bytes.starts_with(b"."))?;
    let machine = std::str::from_utf8(&bytes[..colon]).ok().filter(|name| !name.is_empty() && !name.contains('/'))?;
    Some((machine.to_owned(), OsStr::from_bytes(&bytes[colon + 1..])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_is_what_is_before_a_colon() {
        let parts =
            |text: &'static str| split(OsStr::new(text)).map(|(machine, path)| (machine, path.to_str().unwrap()));
        assert_eq!(parts("w:/a:b"), Some(("w".into(), "/a:b")));
        assert_eq!(parts("w:"), Some(("w".into(), "")));
        for path in ["a", "/w:/a", "./w:/a", "a/w:b", ":/a", "-", "", "."] {
            assert_eq!(parts(path), None, "{path}");
        }
    }
}
