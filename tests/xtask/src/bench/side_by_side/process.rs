// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A started monitor: its clock, its guest's output, its end.

use super::guest::Outcome;
use crate::bench::unit::elapsed_us;
use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use std::fs;
use std::io::Read;
use std::process::Child;
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

    /// Its guest is talked to on this thread.
    pub(super) fn with_conversation(mut self, conversation: JoinHandle<Result<()>>) -> Process {
        self.conversation = Some(conversation);
        self
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the first output.
    pub(super) fn wait_for_output(&mut self) -> Result<()> {
        let mut first = [0];
        self.stdout.read_exact(&mut first).context("the workload wrote nothing")?;
        self.first_byte_us = Some(elapsed_us(self.started)?);
        self.bytes.extend(first);
        Ok(())
    }

    /// Takes the output until it ends; how many bytes those were, and in how many microseconds from the first to the last.
    pub(super) fn drain(mut self) -> Result<(u64, u64)> {
        self.wait_for_output()?;
        let started = Instant::now();
        let mut piece = vec![0; 1 << 20];
        let mut total = 1;
        loop {
            match self.stdout.read(&mut piece)? {
                0 => return Ok((total, elapsed_us(started)?.max(1))),
                length => total += length as u64,
            }
        }
    }

    /// Waits for the end, which must be a success.
    pub(super) fn finish(mut self) -> Result<Outcome> {
        self.wait_for_output()?;
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
        let said = fs::read_to_string(self.folder.path().join(Process::LOG)).unwrap_or_default();
        ensure!(status.success(), "it ended with {status}: {said}");
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

/// User and system time of a process and its threads (proc_pid_stat(5), fields 14 and 15).
fn cpu_time_us(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    cpu_ticks(&text).map(|ticks| ticks * 1_000_000 / rustix::param::clock_ticks_per_second()).context("/proc/PID/stat")
}

/// The name in parentheses may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::cpu_ticks;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "12 (a ) b) S 1 2 3 4 5 6 7 8 9 10 100 23 0 0 20";
        assert_eq!(cpu_ticks(stat), Some(123));
    }
}
