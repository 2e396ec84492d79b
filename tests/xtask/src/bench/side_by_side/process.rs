// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A started monitor: its times and its guest's output.

use super::guest::Outcome;
use crate::bench::unit::{cpu_time_us, elapsed_us};
use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use std::fs;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Instant;
use tempfile::TempDir;

/// A run. Dropping it kills the monitor.
pub(super) struct Process {
    child: Child,
    started: Instant,
    stdout: Box<dyn Read>,
    first_byte_us: Option<u64>,
    bytes: Vec<u8>,
    /// Serves PID 1 where the monitor does not.
    server: Option<JoinHandle<Result<()>>>,
    /// Holds sockets and documents.
    directory: TempDir,
}

impl Process {
    /// The file in its directory that has the monitor's messages, if standard error does not.
    pub(super) const LOG: &str = "monitor.log";

    /// `child` was started at `started`; its guest's standard output comes from `stdout`.
    pub(super) fn new(child: Child, started: Instant, stdout: Box<dyn Read>, directory: TempDir) -> Process {
        let (first_byte_us, bytes) = (None, Vec::new());
        Process { child, started, stdout, first_byte_us, bytes, server: None, directory }
    }

    /// Starts a monitor whose standard output is its guest's.
    pub(super) fn start(mut command: Command, directory: TempDir) -> Result<Process> {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let started = Instant::now();
        let mut child = command.spawn().with_context(|| command.get_program().display().to_string())?;
        let stdout = child.stdout.take().context("standard output")?;
        Ok(Process::new(child, started, Box::new(stdout), directory))
    }

    /// Adds the thread that serves PID 1.
    pub(super) fn with_server(mut self, server: JoinHandle<Result<()>>) -> Process {
        self.server = Some(server);
        self
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the first output, which must be the workload's: another beginning is a message of the kernel or the monitor.
    pub(super) fn wait_for_output(&mut self, beginning: &str) -> Result<()> {
        self.take_output()?;
        self.first_byte_us = Some(elapsed_us(self.started)?);
        while self.bytes.len() < beginning.len() {
            self.take_output()?;
        }
        if !self.bytes.starts_with(beginning.as_bytes()) {
            // The complete line helps more than its first bytes.
            while !self.bytes.contains(&b'\n') && self.take_output().is_ok() {}
            bail!("unexpected output `{}`{}", String::from_utf8_lossy(&self.bytes).trim(), self.log());
        }
        Ok(())
    }

    fn take_output(&mut self) -> Result<()> {
        let mut buffer = [0; 4096];
        let length = self.stdout.read(&mut buffer)?;
        ensure!(length > 0, "its output ended after {} bytes{}", self.bytes.len(), self.log());
        self.bytes.extend(&buffer[..length]);
        Ok(())
    }

    /// The monitor's messages, as the end of an error's.
    fn log(&self) -> String {
        let log = fs::read_to_string(self.directory.path().join(Process::LOG)).unwrap_or_default();
        if log.trim().is_empty() { String::new() } else { format!(": {}", log.trim()) }
    }

    /// Reads the output to its end. Returns the number of bytes, and of microseconds from the first to the last.
    pub(super) fn drain(mut self) -> Result<(u64, u64)> {
        self.wait_for_output("")?;
        let started = Instant::now();
        let mut buffer = vec![0; 1 << 20];
        let mut total = self.bytes.len() as u64;
        loop {
            match self.stdout.read(&mut buffer)? {
                0 => return Ok((total, elapsed_us(started)?.max(1))),
                length => total += length as u64,
            }
        }
    }

    /// Waits for the end, which must be a success, of a workload whose output begins with `beginning`.
    pub(super) fn finish(mut self, beginning: &str) -> Result<Outcome> {
        self.wait_for_output(beginning)?;
        self.stdout.read_to_end(&mut self.bytes)?;
        let pid = Pid::from_child(&self.child);
        // Not reaped yet, so that its times can be read.
        waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
        let end_us = elapsed_us(self.started)?;
        let cpu_us = cpu_time_us(self.child.id())?;
        let status = self.child.wait()?;
        if let Some(server) = self.server.take() {
            server.join().map_err(|_| anyhow::anyhow!("the thread that serves PID 1 panicked"))??;
        }
        ensure!(status.success(), "it ended with {status}{}", self.log());
        let first_byte_us = self.first_byte_us.context("the workload wrote nothing")?;
        Ok(Outcome { first_byte_us, end_us, cpu_us, stdout: std::mem::take(&mut self.bytes) })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail without harm if the process was waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
