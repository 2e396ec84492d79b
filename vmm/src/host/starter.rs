// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A process of its own (`-d`), and the word to whoever started it. Used by `main` on either side.
//!
//! The starter runs this program again, with the request on its standard input and a pipe as its standard output. What is
//! refused goes to the starter's standard error, which is still ours; the first line on the pipe says that the workload
//! runs. From then on the three belong to nobody.

use rustix::fs::{Mode, OFlags, open};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use std::fs::File;
use std::io::{Read as _, Result, Write as _};
use std::process::{Command, Stdio};

/// What became of a start.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Started {
    /// It runs, under this name.
    Running(String),
    /// It ended before, with this exit status; it has said why.
    Ended(u8),
}

/// Runs this program as a process of its own with `words`, hands it `document`, and waits until it runs or has ended.
///
/// # Errors
/// The host has no room for another process.
pub(crate) fn start(words: &[&str], document: &str) -> Result<Started> {
    let mut child = Command::new("/proc/self/exe").args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read has ended, and said why.
        let _ = stdin.write_all(document.as_bytes());
    }
    let mut name = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut name)?;
    }
    if let Some(name) = name.strip_suffix('\n') {
        return Ok(Started::Running(name.to_owned()));
    }
    let status = child.wait()?;
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    let code = status.code().or(signal.map(|signal| 128 + signal));
    Ok(Started::Ended(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)))
}

/// Whoever waits for the start of this process.
#[derive(Debug)]
pub(crate) struct Starter {
    /// Takes the place of standard error once the start is over.
    errors: Option<File>,
}

impl Starter {
    /// Makes this process one of its own session, whose standard output leads to its starter.
    ///
    /// # Errors
    /// It leads a group already.
    pub(crate) fn leave() -> Result<Self> {
        rustix::process::setsid()?;
        dup2_stdin(nowhere()?)?;
        Ok(Self { errors: None })
    }

    /// What is to be said after the start goes to `file`.
    pub(crate) fn log_to(&mut self, file: File) {
        self.errors = Some(file);
    }

    /// Tells the starter that the workload runs under `name`, and lets go of its streams.
    ///
    /// # Errors
    /// The starter is gone: nobody knows of this process.
    pub(crate) fn tell(self, name: &str) -> Result<()> {
        let told = std::io::stdout().write_all(format!("{name}\n").as_bytes());
        let told = told.and_then(|()| std::io::stdout().flush());
        let nowhere = nowhere()?;
        dup2_stdout(&nowhere)?;
        dup2_stderr(self.errors.as_ref().unwrap_or(&nowhere))?;
        told
    }
}

fn nowhere() -> Result<File> {
    Ok(open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?.into())
}
