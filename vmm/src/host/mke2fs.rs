// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An empty ext4 file system, by `mke2fs`.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::process::{Command, Stdio};

/// No file system.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FormatError {
    /// A program that formats is needed.
    #[error("mke2fs is not installed: install e2fsprogs, or use --scratch tmpfs")]
    NotInstalled,
    /// It cannot be started.
    #[error("cannot run mke2fs")]
    Start(#[source] io::Error),
    /// It refused.
    #[error("mke2fs cannot format a scratch disk of {size} bytes: {message}")]
    Refused {
        /// Of the disk.
        size: u64,
        /// Its last line.
        message: String,
    },
}

/// Features of the file system, and only these, whatever the host's `mke2fs.conf` says. No journal and no checksums: what
/// is on the disk never outlives the machine, and on hosts that emulate the guest's kernel each checksum is expensive.
/// `uninit_bg` lets the guest take most of the disk as never used.
const FEATURES: &str = "none,dir_index,dir_nlink,ext_attr,extent,extra_isize,filetype,flex_bg,huge_file,large_file,\
                        sparse_super2,uninit_bg";

/// Formats `file`, which has `size` bytes that read as zeroes.
///
/// # Errors
/// The program is not there, or refused.
pub(super) fn format(file: &File, size: u64) -> Result<(), FormatError> {
    // A user's path need not have the administrator's folders.
    for program in ["mke2fs", "/usr/sbin/mke2fs", "/sbin/mke2fs"] {
        let mut command = Command::new(program);
        command.args(["-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-i", "16384", "-m", "0", "-O", FEATURES]);
        command.args(["-E", "nodiscard,lazy_itable_init=1,num_backup_sb=0,root_owner=0:0", "/proc/self/fd/0"]);
        let stdin = file.try_clone().map_err(FormatError::Start)?;
        let output = match command.stdin(stdin).stdout(Stdio::null()).stderr(Stdio::piped()).output() {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            result => result.map_err(FormatError::Start)?,
        };
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let message = text.lines().map(str::trim).rfind(|line| !line.is_empty());
        let message = message.map_or_else(|| output.status.to_string(), str::to_owned);
        return Err(FormatError::Refused { size, message });
    }
    Err(FormatError::NotInstalled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_that_holds_no_file_system_is_refused_with_the_programs_own_words() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let error = format(&file, 4096).unwrap_err();
        assert!(matches!(&error, FormatError::Refused { message, .. } if !message.is_empty()), "{error}");
    }
}
