// SPDX-License-Identifier: Apache-2.0 OR MIT
//! nft(8), with limits for its time and its output.

use crate::host::helper_process::{helper, run_within};
use crate::host::message_file::MessageFile;
use rustix::fs::{MemfdFlags, memfd_create};
use std::fs::File;
use std::io::{Error, ErrorKind, Result as IoResult, Seek as _, Write as _};
use std::process::Stdio;
use std::time::Duration;

/// It takes some 20 ms for hundreds of rules.
const MAX_TIME: Duration = Duration::from_secs(20);

#[derive(Debug, thiserror::Error)]
pub(crate) enum NftError {
    #[error("nft is not installed; the package `nftables` has it")]
    NotInstalled,
    #[error("cannot run nft")]
    Run(#[source] Error),
    #[error("nft: {0}")]
    Rejected(String),
}

/// Executes the commands in `text`, all of them or none.
pub(super) fn execute(text: &str) -> Result<(), NftError> {
    run(&["-f", "-"], text).map(drop)
}

/// Whether this kernel has what the commands in `text` need. Changes nothing.
pub(super) fn check(text: &str) -> Result<(), NftError> {
    run(&["--check", "-f", "-"], text).map(drop)
}

/// The chains of all tables, without their rules.
pub(super) fn chains() -> Result<String, NftError> {
    run(&["list", "chains"], "")
}

/// Returns the beginning of its output.
fn run(arguments: &[&str], input: &str) -> Result<String, NftError> {
    let (output, messages) = (MessageFile::new().map_err(NftError::Run)?, MessageFile::new().map_err(NftError::Run)?);
    let streams = || Ok((input_file(input)?, output.writer()?, messages.writer()?));
    let (stdin, stdout, stderr) = streams().map_err(NftError::Run)?;
    let mut command = helper("nft");
    command.args(arguments).stdin(Stdio::from(stdin)).stdout(stdout).stderr(stderr);
    let status = run_within(&mut command, MAX_TIME).map_err(|error| match error.kind() {
        ErrorKind::NotFound => NftError::NotInstalled,
        _ => NftError::Run(error),
    })?;
    if status.success() {
        return Ok(output.content());
    }
    let messages = messages.content();
    Err(NftError::Rejected(messages.lines().next().unwrap_or("no message").trim().to_owned()))
}

fn input_file(text: &str) -> IoResult<File> {
    let mut file = File::from(memfd_create("nft", MemfdFlags::CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file)
}
