// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `cp`: copies files out of a machine, and into one that runs.

use super::machines::{self, RunDirArgument};
use crate::host::terminal::is_terminal;
use crate::run::copy::Copied;
use crate::run::copy_into::{self, CopyOptions};
use crate::run::failure::Failure;
use crate::state::end::EndReason;
use clap::{Args, ValueHint};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Copy files between the host and a machine
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coracle cp job:/var/log/app.log .
  coracle cp job:/srv/. copy
  coracle cp job:/etc - | tar -t
  coracle cp app.conf job:/etc/
  tar -c site | coracle cp - job:/srv

As with `docker cp`, the source is copied into a directory that is there, and \
else gets the name of the destination. On the host the files are the caller's; \
set-id bits, extended attributes, devices and FIFOs are not copied to it, and an \
archive has them. What is mounted, volumes included, is not copied out. A machine \
that has ended has to be kept (`coracle run --name`). Files are copied into a \
machine that runs, to volumes and other mounts, too. There they are root's, \
without set-id bits, unless -a is given or they come from an archive.")]
pub(super) struct CpArguments {
    /// MACHINE:PATH or a path of the host, which may end in `/.` for what is in a directory; or `-` for a tar archive on standard
    /// input, plain or as gzip
    #[arg(value_name = "SOURCE", value_hint = ValueHint::AnyPath)]
    source: OsString,
    /// A path of the host, or `-` for a tar archive on standard output; or MACHINE:PATH
    #[arg(value_name = "DESTINATION", value_hint = ValueHint::AnyPath)]
    destination: OsString,
    /// Give files in the machine the owners, by number, and the set-id bits that they have on the host
    #[arg(short, long)]
    archive: bool,
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
    let CpArguments { source, destination, archive, follow_link, run_dir } = arguments;
    let (machine, path) = match (split(source), split(destination)) {
        (Some(_), None) if *archive => {
            return Err(refused(
                "cp: -a is for copies into a machine; `-` as the destination keeps owners in an archive",
            ));
        }
        (Some(source), None) => source,
        (None, Some((machine, path))) => return copy_into(arguments, &machine, path),
        (Some(_), Some(_)) => return Err(refused("cp: files cannot be copied from one machine to another")),
        (None, None) => return Err(refused("cp: the source or the destination has to be MACHINE:PATH")),
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

fn copy_into(arguments: &CpArguments, machine: &str, path: &OsStr) -> Result<(), Failure> {
    let CpArguments { source, archive, follow_link, run_dir, .. } = arguments;
    let machine = run_dir.find(machine)?;
    let name = &machine.name;
    if machine.has_ended() {
        let state = machine.state();
        let error =
            format!("{name} is {state}: files are copied into machines that run; `coracle start {name}` runs it");
        return Err(refused(&error));
    }
    if source != "-" {
        let options = CopyOptions { keeps_owners: *archive, follows_link: *follow_link };
        return copy_into::copy(&machine, Path::new(source), path.as_bytes(), options);
    }
    if is_terminal(io::stdin()) {
        return Err(refused("cp: standard input is a terminal; give a file or a redirection"));
    }
    copy_into::extract(&machine, io::stdin().lock(), path.as_bytes())
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
