// SPDX-License-Identifier: Apache-2.0 OR MIT
//! New ext4 file systems, by `mke2fs`.

use super::helper_process::helper;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::process::Stdio;

/// With a journal, for file systems that outlive a machine that is killed. No checksums, which are expensive where the guest's
/// kernel mode is emulated. Nothing is written that reads as zeroes anyway.
const FEATURES: &str = "none,dir_index,dir_nlink,ext_attr,extent,extra_isize,filetype,flex_bg,has_journal,huge_file,large_file,sparse_super,uninit_bg";
const EXTENDED: &str = "nodiscard,lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0";
/// Sizes of the journal, in MiB, below and from [`LARGE`] on.
const JOURNALS: [&str; 2] = ["size=4", "size=16"];
const LARGE: u64 = 256 << 20;

#[derive(Debug, thiserror::Error)]
pub(crate) enum FormatError {
    #[error("mke2fs is not installed; the package e2fsprogs has it")]
    NotInstalled,
    #[error("cannot run mke2fs")]
    Run(#[source] io::Error),
    /// With the last line that it printed.
    #[error("mke2fs cannot format a disk of {size} bytes: {message}")]
    Refused { size: u64, message: String },
}

/// Makes an empty file system on `file`, whose `size` bytes read as zeroes. `options` name the features (`-O`), whatever the host's
/// `mke2fs.conf` says.
///
/// # Errors
/// `mke2fs` is missing or fails.
pub(crate) fn format(file: &File, size: u64, options: &[&str]) -> Result<(), FormatError> {
    let mut command = helper("mke2fs");
    command.args(["-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-i", "16384", "-m", "0"]);
    command.args(options).arg("/proc/self/fd/0");
    let stdin = file.try_clone().map_err(FormatError::Run)?;
    let output = match command.stdin(stdin).stdout(Stdio::null()).stderr(Stdio::piped()).output() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(FormatError::NotInstalled),
        result => result.map_err(FormatError::Run)?,
    };
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let message = text.lines().map(str::trim).rfind(|line| !line.is_empty());
    let message = message.map_or_else(|| output.status.to_string(), str::to_owned);
    Err(FormatError::Refused { size, message })
}

/// Like [`format`], for a file system that outlives its machine.
///
/// # Errors
/// `mke2fs` is missing or fails.
pub(crate) fn format_with_journal(file: &File, size: u64) -> Result<(), FormatError> {
    let journal = JOURNALS[usize::from(size >= LARGE)];
    format(file, size, &["-O", FEATURES, "-E", EXTENDED, "-J", journal])
}
