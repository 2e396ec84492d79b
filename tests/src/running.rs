// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A started call of the binary.

use crate::capture::Capture;
use crate::finished::Finished;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

/// A started call. Dropping it kills the process, so that a failing test leaves none.
pub struct Running {
    child: Child,
    /// A pidfd: signals and waits cannot reach another process that got the same number.
    handle: OwnedFd,
    stdout: Capture,
    stderr: Capture,
    started: Instant,
    limit: Duration,
    command: String,
    result: PathBuf,
    console: PathBuf,
}

impl Running {
    pub(crate) fn new(
        child: Child,
        stdout: Capture,
        stderr: Capture,
        limit: Duration,
        command: String,
        result: PathBuf,
        console: PathBuf,
    ) -> Running {
        let pid = Pid::from_child(&child);
        let handle = pidfd_open(pid, PidfdFlags::empty()).expect("a child that was not waited for exists");
        Running { child, handle, stdout, stderr, started: Instant::now(), limit, command, result, console }
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) {
        pidfd_send_signal(&self.handle, signal)
            .unwrap_or_else(|error| panic!("cannot signal {}: {error}", self.command));
    }

    /// Sends a signal and waits until it is no longer pending: the kernel merges two pending signals of one number.
    pub fn signal_taken(&self, signal: Signal) {
        self.signal(signal);
        let bit = 1_u64 << (signal.as_raw() - 1);
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.pending_signals() & bit != 0 {
            assert!(Instant::now() < deadline, "{signal:?} stays pending in {}", self.command);
            std::thread::yield_now();
        }
    }

    /// Signals pending for the process, as a bit set; none once it has ended.
    fn pending_signals(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let pending = status.lines().find_map(|line| line.strip_prefix("ShdPnd:")).unwrap_or("0");
        let ended = status.lines().any(|line| line.starts_with("State:\tZ"));
        if ended { 0 } else { u64::from_str_radix(pending.trim(), 16).expect("the kernel writes hexadecimal") }
    }

    /// Writes to its standard input.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let stdin = self.child.stdin.as_mut().expect("the test asked for Stdin::Pipe");
        stdin.write_all(bytes.as_ref()).expect("the binary reads its standard input");
    }

    /// Closes its standard input.
    pub fn close_stdin(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Waits until `text` is on its standard output; fails the test if it does not come.
    pub fn wait_for_stdout(&mut self, text: &str) {
        if !self.stdout.wait_for(text.as_bytes(), self.left()) {
            self.give_up(&format!("`{text}` did not come on stdout"));
        }
    }

    /// Waits until `text` is on its standard error; fails the test if it does not come.
    pub fn wait_for_stderr(&mut self, text: &str) {
        if !self.stderr.wait_for(text.as_bytes(), self.left()) {
            self.give_up(&format!("`{text}` did not come on stderr"));
        }
    }

    /// Whether it has ended, without waiting.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.wait_for_exit(Duration::ZERO)
    }

    /// Waits for the end; fails the test if it does not come within the limit, or if another process holds the streams.
    #[must_use]
    pub fn finish(mut self) -> Finished {
        if !self.wait_for_exit(self.left()) {
            self.give_up("it did not end in time");
        }
        let elapsed = self.started.elapsed();
        let status = self.child.wait().expect("a child can be waited for");
        let grace = Duration::from_secs(5);
        assert!(self.stdout.wait_for_end(grace), "another process holds stdout after the end of {}", self.command);
        assert!(self.stderr.wait_for_end(grace), "another process holds stderr after the end of {}", self.command);
        Finished {
            command: self.command.clone(),
            status,
            stdout: self.stdout.bytes(),
            stderr: String::from_utf8_lossy(&self.stderr.bytes()).into_owned(),
            result: fs::read(&self.result).ok().map(|bytes| serde_json::from_slice(&bytes).expect("result is JSON")),
            console: read_lossy(&self.console),
            elapsed,
        }
    }

    /// Waits for the end of a process that was killed, whose streams another one may hold for a moment.
    pub(crate) fn wait(mut self) -> ExitStatus {
        self.child.wait().expect("a child can be waited for")
    }

    fn left(&self) -> Duration {
        self.limit.saturating_sub(self.started.elapsed())
    }

    fn wait_for_exit(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).expect("limits are short");
            let mut descriptors = [PollFd::new(&self.handle, PollFlags::IN)];
            match poll(&mut descriptors, Some(&timeout)) {
                Ok(0) => return false,
                Ok(_) => return true,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("cannot wait for {}: {error}", self.command),
            }
        }
    }

    /// Kills the process and fails the test, with everything that helps to find the cause.
    fn give_up(&mut self, what: &str) -> ! {
        let ended = self.has_ended();
        let _ = self.child.kill();
        let status = self.child.wait().expect("a child can be waited for");
        panic!(
            "{what} ({:.1} s; {})\n{}",
            self.started.elapsed().as_secs_f32(),
            if ended { format!("it ended: {status}") } else { "killed".into() },
            report(&self.command, &self.stdout.bytes(), &self.stderr.bytes(), &read_lossy(&self.console))
        )
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail without harm if the process was waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_lossy(path: &PathBuf) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// What is printed when a test fails.
pub(crate) fn report(command: &str, stdout: &[u8], stderr: &[u8], console: &str) -> String {
    let shown = String::from_utf8_lossy(&stdout[..stdout.len().min(4 << 10)]);
    let lines: Vec<&str> = console.lines().collect();
    let tail = lines[lines.len().saturating_sub(40)..].join("\n");
    let stderr = String::from_utf8_lossy(stderr);
    format!(
        "command: {command}\n--- stdout\n{shown}\n--- stderr\n{stderr}\n--- end of the guest's console\n{tail}\n---"
    )
}
