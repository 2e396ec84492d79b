// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A started monitor: its clock, its guest's output, its end.

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

/// A run. Ended when dropped.
pub(super) struct Process {
    child: Child,
    started: Instant,
    stdout: Box<dyn Read>,
    first_byte_us: Option<u64>,
    bytes: Vec<u8>,
    /// Talks to the guest where the monitor does not.
    conversation: Option<JoinHandle<Result<()>>>,
    /// Sockets and documents.
    folder: TempDir,
}

impl Process {
    /// In its folder: what the monitor has to say, if it is kept from standard error.
    pub(super) const LOG: &str = "monitor.log";

    /// `child` was started at `started`; its guest's standard output comes from `stdout`.
    pub(super) fn new(child: Child, started: Instant, stdout: Box<dyn Read>, folder: TempDir) -> Process {
        let (first_byte_us, bytes) = (None, Vec::new());
        Process { child, started, stdout, first_byte_us, bytes, conversation: None, folder }
    }

    /// Starts a monitor whose standard output is its guest's.
    pub(super) fn start(mut command: Command, folder: TempDir) -> Result<Process> {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let started = Instant::now();
        let mut child = command.spawn().with_context(|| command.get_program().display().to_string())?;
        let stdout = child.stdout.take().context("standard output")?;
        Ok(Process::new(child, started, Box::new(stdout), folder))
    }

    /// Its guest is talked to on this thread.
    pub(super) fn with_conversation(mut self, conversation: JoinHandle<Result<()>>) -> Process {
        self.conversation = Some(conversation);
        self
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the first output. What does not begin as the workload's does is a kernel's or monitor's, and a failure.
    pub(super) fn wait_for_output(&mut self, beginning: &str) -> Result<()> {
        self.take_output()?;
        self.first_byte_us = Some(elapsed_us(self.started)?);
        while self.bytes.len() < beginning.len() {
            self.take_output()?;
        }
        if !self.bytes.starts_with(beginning.as_bytes()) {
            // The whole line tells more than its first byte.
            while !self.bytes.contains(&b'\n') && self.take_output().is_ok() {}
            bail!("it wrote `{}`{}", String::from_utf8_lossy(&self.bytes).trim(), self.said());
        }
        Ok(())
    }

    fn take_output(&mut self) -> Result<()> {
        let mut piece = [0; 4096];
        let length = self.stdout.read(&mut piece)?;
        ensure!(length > 0, "its output ended after {} bytes{}", self.bytes.len(), self.said());
        self.bytes.extend(&piece[..length]);
        Ok(())
    }

    /// What the monitor has to say, as the end of a message.
    fn said(&self) -> String {
        let log = fs::read_to_string(self.folder.path().join(Process::LOG)).unwrap_or_default();
        if log.trim().is_empty() { String::new() } else { format!(": {}", log.trim()) }
    }

    /// Takes the output until it ends; how many bytes those were, and in how many microseconds from the first to the last.
    pub(super) fn drain(mut self) -> Result<(u64, u64)> {
        self.wait_for_output("")?;
        let started = Instant::now();
        let mut piece = vec![0; 1 << 20];
        let mut total = self.bytes.len() as u64;
        loop {
            match self.stdout.read(&mut piece)? {
                0 => return Ok((total, elapsed_us(started)?.max(1))),
                length => total += length as u64,
            }
        }
    }

    /// Waits for the end, which must be a success, of a workload whose output begins like this.
    pub(super) fn finish(mut self, beginning: &str) -> Result<Outcome> {
        self.wait_for_output(beginning)?;
        self.stdout.read_to_end(&mut self.bytes)?;
        let pid = Pid::from_child(&self.child);
        // Not reaped yet: its times are still to be read.
        waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
        let end_us = elapsed_us(self.started)?;
        let cpu_us = cpu_time_us(self.child.id())?;
        let status = self.child.wait()?;
        if let Some(conversation) = self.conversation.take() {
            conversation.join().map_err(|_| anyhow::anyhow!("the conversation panicked"))??;
        }
        ensure!(status.success(), "it ended with {status}{}", self.said());
        let first_byte_us = self.first_byte_us.context("the workload wrote nothing")?;
        Ok(Outcome { first_byte_us, end_us, cpu_us, stdout: std::mem::take(&mut self.bytes) })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail harmlessly when the end was seen already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
