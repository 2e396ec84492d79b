// SPDX-License-Identifier: Apache-2.0 OR MIT
//! System calls on a thread of another process, by `tests/inject/remote_calls.c`.

use crate::{Running, remote_calls};
use rustix::io::Errno;
use std::fmt;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Why a call had no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A seccomp filter does not allow it.
    Filter,
    Error(Errno),
    /// The thread has ended.
    Ended,
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filter => formatter.write_str("refused by the filter"),
            Self::Error(error) => write!(formatter, "{error}"),
            Self::Ended => formatter.write_str("the thread has ended"),
        }
    }
}

/// A thread that makes the calls that it is told to make. Its process is killed when this is dropped.
pub(super) struct Remote {
    run: Running,
    calls: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// Memory of the process for arguments, and how much of it is used.
    memory: u64,
    size: u64,
    used: u64,
}

impl Remote {
    pub(super) fn attach(run: Running, thread: &str) -> Self {
        let mut program = Command::new(remote_calls());
        program.args([&run.pid().to_string(), thread]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut calls = program.spawn().expect("the program can be executed");
        let commands = calls.stdin.take().expect("it is a pipe");
        let mut answers = BufReader::new(calls.stdout.take().expect("it is a pipe"));
        let mut line = String::new();
        answers.read_line(&mut line).expect("the pipe is readable");
        let ready: Option<(&str, &str)> = line.trim().strip_prefix("ready 0x").and_then(|words| words.split_once(' '));
        let (memory, size) = ready.unwrap_or_else(|| panic!("cannot attach to {thread}"));
        let memory = u64::from_str_radix(memory, 16).expect("it is hexadecimal");
        Self { run, calls, commands, answers, memory, size: size.parse().expect("it is a number"), used: 0 }
    }

    pub(super) fn process(&self) -> u32 {
        self.run.pid()
    }

    /// The first address of the memory for arguments, on a page of its own.
    pub(super) fn memory(&self) -> u64 {
        self.memory
    }

    /// Forgets what was put there.
    pub(super) fn clear(&mut self) {
        self.used = 0;
    }

    /// Memory of `size` bytes, for results.
    pub(super) fn space(&mut self, size: u64) -> u64 {
        let address = self.memory + self.used;
        self.used = (self.used + size).next_multiple_of(16);
        assert!(self.used <= self.size, "too many arguments");
        address
    }

    /// The address of `bytes`.
    pub(super) fn put(&mut self, bytes: &[u8]) -> u64 {
        let address = self.space(bytes.len() as u64);
        for (at, bytes) in (address..).step_by(1024).zip(bytes.chunks(1024)) {
            let words: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(self.command(&format!("w {at:#x} {}", words.join(" "))), "ok");
        }
        address
    }

    /// The address of a path.
    pub(super) fn path(&mut self, path: impl AsRef<std::path::Path>) -> u64 {
        let mut bytes = path.as_ref().as_os_str().as_encoded_bytes().to_vec();
        bytes.push(0);
        self.put(&bytes)
    }

    /// The address of these words.
    pub(super) fn words(&mut self, words: &[u64]) -> u64 {
        self.put(&words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>())
    }

    /// Makes a call, with at most six arguments.
    pub(super) fn call(&mut self, number: i64, arguments: &[u64]) -> Result<u64, Refusal> {
        let words: Vec<_> = arguments.iter().map(|argument| format!("{argument:#x}")).collect();
        match &*self.command(&format!("c {number} {}", words.join(" "))) {
            "refused" => Err(Refusal::Filter),
            "ended" | "" => Err(Refusal::Ended),
            "executed" => Ok(0),
            result => {
                let result: i64 = result.parse().expect("it is a number");
                match i32::try_from(-result) {
                    Ok(error @ 1..4096) => Err(Refusal::Error(Errno::from_raw_os_error(error))),
                    _ => Ok(result.cast_unsigned()),
                }
            }
        }
    }

    /// An empty answer means that the program has ended.
    fn command(&mut self, command: &str) -> String {
        let mut line = String::new();
        let sent = writeln!(self.commands, "{command}").and_then(|()| self.answers.read_line(&mut line));
        if sent.is_ok() { line.trim_end().to_owned() } else { String::new() }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        let _ = self.calls.kill();
        let _ = self.calls.wait();
    }
}
