// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One process beside the workload, and its streams. Output is read only as far as the host has given credit for it, input is
//! kept only as far as the host was given credit: so neither can fill PID 1's memory or hold up anything but itself.
//!
//! Its end is the end of that one process. What its pipes hold then still goes out; what descendants write later finds nobody.

use super::super::enter::window;
use super::super::streams::End;
use super::super::workload::Streams;
use super::start::Started;
use crate::freestanding::system_call::send_signal;
use alloc::vec;
use alloc::vec::Vec;
use guest_protocol::exec::{ExecReport, ExecRequest, OUTPUT_OVERHEAD, OUTPUT_WINDOW, output_cost};
use guest_protocol::protocol::WorkloadEnd;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::{Errno, fcntl_dupfd_cloexec, read, write};
use rustix::process::{Pid, WaitOptions, waitpid};
use rustix::termios::tcsetwinsize;

/// Most bytes of one message.
const PIECE: usize = 16 << 10;
/// The end-of-file character of a terminal (Ctrl-D).
const END_OF_FILE: u8 = 4;
const SIGHUP: u8 = 1;
const SIGCONT: u8 = 18;
const LAST_SIGNAL: u8 = 64;

/// What an event of the loop concerns, in the low bits of its token.
pub(super) const TOKEN_BITS: u32 = 2;
const PROCESS: u64 = 0;
const STDIN: u64 = 1;
const STDOUT: u64 = 2;
const STDERR: u64 = 3;

/// See the module.
pub(super) struct Process {
    pid: Pid,
    pidfd: OwnedFd,
    terminal: bool,
    stdin: Option<End>,
    /// What arrived for it and was not taken yet.
    input: Vec<u8>,
    /// The host has no more input.
    input_ended: bool,
    stdout: Option<End>,
    stderr: Option<End>,
    /// Credit for output.
    credit: u32,
    end: Option<WorkloadEnd>,
}

impl Process {
    /// Adds a process that was started to the event loop; the tokens of its events are `token` and the next three.
    pub(super) fn new(started: Started, token: u64, epoll: &OwnedFd) -> Result<Self, Errno> {
        let Started { pid, pidfd, streams } = started;
        epoll::add(epoll, &pidfd, EventData::new_u64(token | PROCESS), EventFlags::IN)?;
        let terminal = matches!(streams, Some(Streams::Terminal { .. }));
        let reading = |descriptor: OwnedFd, kind| {
            fcntl_setfl(&descriptor, OFlags::NONBLOCK)?;
            End::new(descriptor, token | kind, EventFlags::IN, epoll)
        };
        let writing = |descriptor| End::new(descriptor, token | STDIN, EventFlags::OUT, epoll);
        let (stdin, stdout, stderr) = match streams {
            None => (None, None, None),
            Some(Streams::Pipes { stdin, stdout, stderr }) => {
                (stdin.map(writing).transpose()?, Some(reading(stdout, STDOUT)?), Some(reading(stderr, STDERR)?))
            }
            Some(Streams::Terminal { master, input, .. }) => {
                let stdin = if input { Some(writing(fcntl_dupfd_cloexec(&master, 0)?)?) } else { None };
                (stdin, Some(reading(master, STDOUT)?), None)
            }
        };
        let (input, input_ended) = (Vec::new(), false);
        Ok(Self { pid, pidfd, terminal, stdin, input, input_ended, stdout, stderr, credit: OUTPUT_WINDOW, end: None })
    }

    /// Takes note of an event of the loop.
    pub(super) fn note(&mut self, token: u64, flags: EventFlags, epoll: &OwnedFd) -> Result<(), Errno> {
        let end = match token & ((1 << TOKEN_BITS) - 1) {
            PROCESS => return self.collect(epoll),
            STDIN => &mut self.stdin,
            STDOUT => &mut self.stdout,
            _ => &mut self.stderr,
        };
        if let Some(end) = end {
            end.note(flags);
        }
        Ok(())
    }

    /// Takes its status.
    fn collect(&mut self, epoll: &OwnedFd) -> Result<(), Errno> {
        let Some((_, status)) = waitpid(Some(self.pid), WaitOptions::empty())? else { return Ok(()) };
        epoll::delete(epoll, &self.pidfd)?;
        self.end = Some(match (status.exit_status(), status.terminating_signal()) {
            (Some(status), _) => WorkloadEnd::Exited(status as u8),
            (None, signal) => WorkloadEnd::Signalled { signal: signal.unwrap_or(0) as u8, out_of_memory: false },
        });
        // What it wrote last is there, whether its event has come or not.
        for output in [&mut self.stdout, &mut self.stderr].into_iter().flatten() {
            output.note(EventFlags::IN);
        }
        Ok(())
    }

    /// Does what the host asks.
    pub(super) fn obey(&mut self, request: ExecRequest) {
        match request {
            ExecRequest::Input(bytes) => self.input.extend_from_slice(&bytes),
            ExecRequest::InputEnd => self.input_ended = true,
            ExecRequest::Signal(signal @ 1..=LAST_SIGNAL) => self.signal(signal),
            ExecRequest::Resize(size) => {
                if let Some(master) = self.stdout.as_ref().filter(|_| self.terminal) {
                    let _ = tcsetwinsize(&master.descriptor, window(size));
                }
            }
            ExecRequest::Credit(bytes) => self.credit = self.credit.saturating_add(bytes),
            ExecRequest::HangUp => {
                (self.stdin, self.stdout, self.stderr) = (None, None, None);
                self.input.clear();
                self.signal(SIGHUP);
                // A stopped one would not hear it.
                self.signal(SIGCONT);
            }
            // No such signal; or it is running already.
            ExecRequest::Signal(_) | ExecRequest::Start(_) => {}
        }
    }

    /// Sends it a signal.
    pub(super) fn signal(&self, signal: u8) {
        // It may have ended a moment ago.
        if self.end.is_none() {
            let _ = send_signal(self.pidfd.as_fd(), signal);
        }
    }

    /// Moves what can be moved. What becomes known is handed to `tell`; after an `Ended` the process is to be dropped.
    pub(super) fn pump(&mut self, epoll: &OwnedFd, mut tell: impl FnMut(ExecReport)) -> Result<(), Errno> {
        self.pump_input(epoll, &mut tell)?;
        for (output, stderr) in [(&mut self.stdout, false), (&mut self.stderr, true)] {
            read_output(output, stderr, &mut self.credit, &mut tell)?;
        }
        let drained = |output: &Option<End>| output.as_ref().is_none_or(|output| !output.is_readable());
        if let Some(end) = self.end
            && drained(&self.stdout)
            && drained(&self.stderr)
        {
            tell(ExecReport::Ended(end));
        }
        Ok(())
    }

    fn pump_input(&mut self, epoll: &OwnedFd, tell: &mut impl FnMut(ExecReport)) -> Result<(), Errno> {
        while let Some(sink) = &mut self.stdin {
            if self.input.is_empty() {
                if self.input_ended {
                    self.input_ended = false;
                    if self.terminal {
                        self.input.push(END_OF_FILE);
                        continue;
                    }
                    self.stdin = None;
                }
                return Ok(());
            }
            if !sink.is_writable() {
                return Ok(());
            }
            match write(&sink.descriptor, &self.input) {
                Ok(written) => {
                    self.input.drain(..written);
                    tell(ExecReport::Credit(written as u32));
                }
                Err(Errno::AGAIN) => sink.full(epoll)?,
                Err(Errno::PIPE | Errno::IO) => self.stdin = None,
                Err(errno) => return Err(errno),
            }
        }
        // Nobody reads it any more: the rest is thrown away.
        if !self.input.is_empty() {
            tell(ExecReport::Credit(self.input.len() as u32));
            self.input.clear();
        }
        Ok(())
    }

    /// Whether it has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    /// Gives up on output that the host does not take: the machine is about to go.
    pub(super) fn abandon_output(&mut self) {
        (self.stdout, self.stderr) = (None, None);
    }
}

fn read_output(
    output: &mut Option<End>,
    stderr: bool,
    credit: &mut u32,
    tell: &mut impl FnMut(ExecReport),
) -> Result<(), Errno> {
    while let Some(source) = output
        && source.is_readable()
        && *credit > OUTPUT_OVERHEAD
    {
        let mut bytes = vec![0; PIECE.min((*credit - OUTPUT_OVERHEAD) as usize)];
        match read(&source.descriptor, &mut bytes[..]) {
            // The master of a terminal that nobody has open any more gives an error.
            Ok(0) | Err(Errno::IO) => *output = None,
            Ok(length) => {
                bytes.truncate(length);
                *credit -= output_cost(length);
                tell(ExecReport::Output { stderr, bytes });
            }
            Err(Errno::AGAIN) => source.drained(),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
