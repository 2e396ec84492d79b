// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The background process of `run -d`. Used by `main`, in the parent and in the child.
//!
//! The parent executes this program again, with the request on its standard input and a pipe as its standard output. Standard
//! error is one of the parent's until the workload runs, so that a start that fails is reported there. The first line on the pipe
//! says that the workload runs; then the child lets go of all three streams.

use super::system_error::{Cannot as _, SystemError};
use rustix::fs::{Mode, OFlags, open};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::process::{Command, Stdio};

/// Outcome of a start, in the parent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Spawned {
    /// The machine of this name runs.
    Running(String),
    /// The child failed with this exit status, and printed why.
    Ended(u8),
}

/// Executes this program in the background with `arguments` and `document` as its standard input, and waits until its workload
/// runs or it has ended. Until then `errors` is its standard error.
///
/// # Errors
/// The process cannot be created.
pub(crate) fn spawn(arguments: &[&OsStr], document: &str, errors: Stdio) -> Result<Spawned, SystemError> {
    try_spawn(arguments, document, errors).cannot("start a process for --detach")
}

fn try_spawn(arguments: &[&OsStr], document: &str, errors: Stdio) -> io::Result<Spawned> {
    let mut program = Command::new("/proc/self/exe");
    program.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors);
    let mut child = program.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A child that does not read has failed, and printed why.
        let _ = stdin.write_all(document.as_bytes());
    }
    let mut name = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut name)?;
    }
    if let Some(name) = name.strip_suffix('\n') {
        return Ok(Spawned::Running(name.to_owned()));
    }
    let status = child.wait()?;
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    let code = status.code().or(signal.map(|signal| 128 + signal));
    Ok(Spawned::Ended(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)))
}

#[derive(Debug)]
pub(crate) struct Daemon {
    /// Becomes standard error once the workload runs.
    log: Option<File>,
}

impl Daemon {
    /// Makes this process the leader of a new session, without the parent's terminal and standard input.
    ///
    /// # Errors
    /// It leads a process group already.
    pub(crate) fn detach() -> Result<Self, SystemError> {
        rustix::process::setsid().cannot("create a session for --detach")?;
        dev_null().and_then(|file| Ok(dup2_stdin(file)?)).cannot("open /dev/null as standard input")?;
        Ok(Self { log: None })
    }

    /// Messages go to `file` once the workload runs.
    pub(crate) fn log_to(&mut self, file: File) {
        self.log = Some(file);
    }

    /// Reports to the parent that the machine `name` runs, and lets go of the parent's streams.
    ///
    /// # Errors
    /// The parent is gone, so no user knows of this machine.
    pub(crate) fn notify_parent(self, name: &str) -> io::Result<()> {
        let written = std::io::stdout().write_all(format!("{name}\n").as_bytes());
        let written = written.and_then(|()| std::io::stdout().flush());
        let dev_null = dev_null()?;
        dup2_stdout(&dev_null)?;
        dup2_stderr(self.log.as_ref().unwrap_or(&dev_null))?;
        written
    }
}

fn dev_null() -> io::Result<File> {
    Ok(open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?.into())
}
