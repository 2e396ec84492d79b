// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One direction of one stream, and how its bytes are moved: only as many as both ends take, so
//! that a side that does not read stops only its own direction, and only a bounded amount per turn
//! of the event loop, so that a busy stream does not delay anything else.
//!
//! Readiness is cached: a descriptor counts as ready until a call returns `EAGAIN`, and again after
//! the (edge-triggered) event. This needs the fewest system calls.

use alloc::boxed::Box;
use guest_init::line_ends::LineEnds;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::{Errno, read, write};
use rustix::pipe::{SpliceFlags, splice};

/// Bytes per splice: the capacity of a pipe.
const SPLICE_SIZE: usize = 64 << 10;
/// The console driver returns at most one buffer of a page at a time.
const COPY_BUF_SIZE: usize = 4096;
/// Reads and writes of one direction per turn of the event loop.
const MAX_MOVES_PER_TURN: usize = 32;
/// The end-of-file character of a terminal (Ctrl-D).
pub(super) const END_OF_FILE: u8 = 4;

/// A descriptor in the event loop, with its cached readiness.
pub(crate) struct PolledFd {
    pub(crate) descriptor: OwnedFd,
    token: u64,
    interest: EventFlags,
    readable: bool,
    writable: bool,
    /// The other side is closed for good: only the rest can still be read.
    hung_up: bool,
}

impl PolledFd {
    /// Adds `descriptor` to the event loop; its events carry `token`.
    pub(crate) fn new(descriptor: OwnedFd, token: u64, interest: EventFlags, epoll: &OwnedFd) -> Result<Self, Errno> {
        let interest = interest | EventFlags::ET;
        epoll::add(epoll, &descriptor, EventData::new_u64(token), interest)?;
        Ok(Self { descriptor, token, interest, readable: true, writable: true, hung_up: false })
    }

    pub(crate) fn on_event(&mut self, flags: EventFlags) {
        self.readable |= flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR);
        self.writable |= flags.intersects(EventFlags::OUT | EventFlags::ERR);
        self.hung_up |= flags.contains(EventFlags::HUP);
    }

    pub(crate) fn is_readable(&self) -> bool {
        self.readable
    }

    pub(crate) fn is_writable(&self) -> bool {
        self.writable
    }

    pub(crate) fn clear_readable(&mut self) {
        self.readable = false;
    }

    /// A write returned `EAGAIN`. A port signals every buffer that the host has taken, so the event
    /// for free space is requested only from the first time that it is needed.
    pub(crate) fn clear_writable(&mut self, epoll: &OwnedFd) -> Result<(), Errno> {
        self.writable = false;
        if !self.interest.contains(EventFlags::OUT) {
            self.interest |= EventFlags::OUT;
            epoll::modify(epoll, &self.descriptor, EventData::new_u64(self.token), self.interest)?;
        }
        Ok(())
    }
}

/// Whether a turn moved all that it could.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nothing moves until the next event.
    Done,
    /// The bound of a turn is reached; there may be more to move at once.
    More,
}

impl Turn {
    pub(crate) fn and(self, other: Self) -> Self {
        if self == Self::More { self } else { other }
    }
}

/// Bytes that have been read and not yet written.
struct Buffer {
    bytes: Box<[u8; COPY_BUF_SIZE]>,
    start: usize,
    end: usize,
}

impl Buffer {
    fn new() -> Self {
        Self { bytes: Box::new([0; COPY_BUF_SIZE]), start: 0, end: 0 }
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    fn fill(&mut self, from: &PolledFd) -> Result<usize, Errno> {
        self.clear();
        self.end = read(&from.descriptor, &mut self.bytes[..])?;
        Ok(self.end)
    }

    /// Like `fill`, with line ends rewritten. Returns the bytes read, of which none may remain.
    fn fill_lines(&mut self, from: &PolledFd, line_ends: &mut LineEnds) -> Result<usize, Errno> {
        self.clear();
        let length = read(&from.descriptor, &mut self.bytes[1..])?;
        let lines = line_ends.rewrite(&mut self.bytes[..=length]);
        (self.start, self.end) = (lines.start, lines.end);
        Ok(length)
    }

    fn drain(&mut self, to: &PolledFd) -> Result<usize, Errno> {
        let written = write(&to.descriptor, &self.bytes[self.start..self.end])?;
        self.start += written;
        Ok(written)
    }
}

/// From the workload to a port of the host.
pub(crate) struct Output {
    /// `None` at the end of the stream, or once its reader on the host is gone.
    pub(crate) source: Option<PolledFd>,
    /// A terminal's bytes are copied; a pipe's pages are spliced to the driver.
    buffer: Option<Buffer>,
    /// The reader of this terminal expects the line ends of a pipe.
    line_ends: Option<LineEnds>,
    /// The workload has ended, so that the terminal is not opened again.
    is_last: bool,
    /// Bytes written to the port.
    pub(crate) bytes: u64,
}

impl Output {
    /// `source` is the read end of a pipe.
    pub(crate) fn from_pipe(source: PolledFd) -> Self {
        Self { source: Some(source), buffer: None, line_ends: None, is_last: false, bytes: 0 }
    }

    /// `source` is the master of a terminal. With `lines` its reader expects the line ends of a
    /// pipe.
    pub(crate) fn from_terminal(source: PolledFd, lines: bool) -> Self {
        let line_ends = lines.then(LineEnds::default);
        Self { source: Some(source), buffer: Some(Buffer::new()), line_ends, is_last: false, bytes: 0 }
    }

    /// The workload has ended, with every process that could write.
    pub(crate) fn expect_end(&mut self) {
        self.is_last = true;
        // A terminal that was closed before sends no further event.
        if let Some(source) = self.source.as_mut().filter(|_| self.buffer.is_some()) {
            source.readable = true;
        }
    }

    pub(crate) fn pump(&mut self, port: &mut PolledFd, epoll: &OwnedFd) -> Result<Turn, Errno> {
        match &mut self.buffer {
            None => self.splice(port, epoll),
            Some(_) => self.copy(port, epoll),
        }
    }

    fn splice(&mut self, port: &mut PolledFd, epoll: &OwnedFd) -> Result<Turn, Errno> {
        for _ in 0..MAX_MOVES_PER_TURN {
            let Some(source) = self.source.as_mut().filter(|source| source.readable && port.writable) else {
                return Ok(Turn::Done);
            };
            match splice(&source.descriptor, None, &port.descriptor, None, SPLICE_SIZE, SpliceFlags::NONBLOCK) {
                // Empty, and no writer is left.
                Ok(0) if source.hung_up => self.source = None,
                Ok(moved) => {
                    self.bytes += moved as u64;
                    // Less than requested: the pipe is empty. A hung-up pipe is read once more, for
                    // its end.
                    source.readable = moved == SPLICE_SIZE || source.hung_up;
                }
                Err(Errno::AGAIN) => port.clear_writable(epoll)?,
                Err(errno) => return Err(errno),
            }
        }
        Ok(Turn::More)
    }

    fn copy(&mut self, port: &mut PolledFd, epoll: &OwnedFd) -> Result<Turn, Errno> {
        let Some(buffer) = &mut self.buffer else { return Ok(Turn::Done) };
        for _ in 0..MAX_MOVES_PER_TURN {
            let Some(source) = &mut self.source else { return Ok(Turn::Done) };
            if buffer.is_empty() {
                if !source.readable {
                    return Ok(Turn::Done);
                }
                let filled = match &mut self.line_ends {
                    Some(line_ends) => buffer.fill_lines(source, line_ends),
                    None => buffer.fill(source),
                };
                match filled {
                    // No process has the terminal open: its end, or a program has hung it up to
                    // open it again.
                    Ok(0) | Err(Errno::IO) if self.is_last => self.source = None,
                    Ok(0) | Err(Errno::IO | Errno::AGAIN) => source.readable = false,
                    Ok(_) => {}
                    Err(errno) => return Err(errno),
                }
            } else if port.writable {
                match buffer.drain(port) {
                    Ok(written) => self.bytes += written as u64,
                    Err(Errno::AGAIN) => port.clear_writable(epoll)?,
                    Err(errno) => return Err(errno),
                }
            } else {
                return Ok(Turn::Done);
            }
        }
        Ok(Turn::More)
    }
}

/// From the host's port to the workload.
pub(crate) struct Input {
    /// `None` once it is closed, by the host's end of file or by the workload. Later input is
    /// discarded.
    pub(crate) sink: Option<PolledFd>,
    /// A terminal is not closed at the end of the input: it gets the end-of-file character.
    terminal: bool,
    buffer: Buffer,
    received: u64,
    /// The host's input ends after this many bytes in total.
    end: Option<u64>,
}

impl Input {
    /// `sink` is the write end of a pipe or the master of a terminal.
    pub(crate) fn new(sink: PolledFd, terminal: bool) -> Self {
        Self { sink: Some(sink), terminal, buffer: Buffer::new(), received: 0, end: None }
    }

    /// The host's input ends after `bytes` in total.
    pub(crate) fn end_after(&mut self, bytes: u64) {
        self.end = Some(bytes);
    }

    pub(crate) fn pump(&mut self, port: &mut PolledFd, epoll: &OwnedFd) -> Result<Turn, Errno> {
        for _ in 0..MAX_MOVES_PER_TURN {
            if self.buffer.is_empty() {
                if self.end.is_some_and(|end| self.received >= end) {
                    self.end = None;
                    if !self.terminal {
                        self.sink = None;
                        return Ok(Turn::Done);
                    }
                    self.buffer.bytes[0] = END_OF_FILE;
                    (self.buffer.start, self.buffer.end) = (0, 1);
                    continue;
                }
                if !port.readable {
                    return Ok(Turn::Done);
                }
                match self.buffer.fill(port) {
                    // The driver reads 0 until the host has opened its side.
                    Ok(0) | Err(Errno::AGAIN) => port.readable = false,
                    Ok(read) => self.received += read as u64,
                    Err(errno) => return Err(errno),
                }
                continue;
            }
            let Some(sink) = &mut self.sink else {
                self.buffer.clear();
                continue;
            };
            if !sink.writable {
                return Ok(Turn::Done);
            }
            match self.buffer.drain(sink) {
                Ok(_) => {}
                Err(Errno::AGAIN) => sink.clear_writable(epoll)?,
                Err(Errno::PIPE | Errno::IO) => self.sink = None,
                Err(errno) => return Err(errno),
            }
        }
        Ok(Turn::More)
    }
}
