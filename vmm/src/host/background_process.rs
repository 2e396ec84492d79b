// SPDX-License-Identifier: Apache-2.0 OR MIT
//! This program again, for work that outlives this process and must not delay it.
#![allow(unsafe_code, reason = "the process leaves its parent between fork and exec")]

use rustix::pipe::fcntl_setpipe_size;
use std::ffi::OsStr;
use std::io::{Error, PipeWriter, Result, Write as _, pipe};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

/// What a pipe holds.
const PIPE_BYTES: usize = 64 << 10;
/// The least that a process can have.
const NICE: libc::c_int = 19;

/// Executes this program with `arguments`, at the lowest priority, in a session of its own, as no child of this process. It reads
/// `document`, and then the end of its standard input when the returned value is dropped.
///
/// # Errors
/// The process cannot be created.
pub(crate) fn spawn(arguments: &[&OsStr], document: &str) -> Result<PipeWriter> {
    let (stdin, mut writer) = pipe()?;
    if document.len() > PIPE_BYTES {
        // Otherwise it takes until the process reads it.
        let _ = fcntl_setpipe_size(&writer, document.len());
    }
    let mut command = Command::new("/proc/self/exe");
    command.args(arguments).stdin(stdin).stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: `leave_parent` makes system calls only, each of which is async-signal-safe, and does not allocate.
    unsafe { command.pre_exec(leave_parent) };
    // The child itself ends before the program is executed.
    command.spawn()?.wait()?;
    writer.write_all(document.as_bytes())?;
    Ok(writer)
}

/// In the child: goes on as a child of the child.
fn leave_parent() -> Result<()> {
    // SAFETY: the child has one thread, and both go on in this function.
    match unsafe { libc::fork() } {
        -1 => return Err(Error::last_os_error()),
        0 => {}
        // SAFETY: ends the process without running anything of this program.
        _ => unsafe { libc::_exit(0) },
    }
    // SAFETY: system calls without pointers. The priority is a wish.
    unsafe {
        libc::setsid();
        libc::nice(NICE);
    }
    Ok(())
}
