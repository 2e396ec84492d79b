// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One direction of one stream, and how bytes are moved along it: never more than both ends take, so a side that does
//! not read stops only its own direction.
//!
//! Readiness is remembered: a descriptor is taken for ready until it says otherwise, and again after the (edge
//! triggered) event that says so. That is the fewest system calls.

use alloc::boxed::Box;
use guest_init::line_ends::LineEnds;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::{Errno, read, write};
use rustix::pipe::{SpliceFlags, splice};

/// At most this many bytes are moved in one call: what a pipe holds.
const SPLICE_BYTES: usize = 64 << 10;
/// What the console driver gives out in one call: a buffer of a page.
const BUFFER_BYTES: usize = 4096;
/// The end-of-file character of a terminal (Ctrl-D).
const END_OF_FILE: u8 = 4;

/// One descriptor in the event loop, and what is known of it.
pub(crate) struct End {
    pub(crate) descriptor: OwnedFd,
    token: u64,
    interest: EventFlags,
    readable: bool,
    writable: bool,
    /// The other side is closed for good: what can still be read is the rest.
    hung_up: bool,
}

impl End {
    /// Adds `descriptor` to the event loop; `token` is what its events carry.
    pub(crate) fn new(descriptor: OwnedFd, token: u64, interest: EventFlags, epoll: &OwnedFd) -> Result<Self, Errno> {
        let interest = interest | EventFlags::ET;
        epoll::add(epoll, &descriptor, EventData::new_u64(token), interest)?;
        Ok(Self { descriptor, token, interest, readable: true, writable: true, hung_up: false })
    }

    /// Takes note of an event.
    pub(crate) fn note(&mut self, flags: EventFlags) {
        self.readable |= flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR);
        self.writable |= flags.intersects(EventFlags::OUT | EventFlags::ERR);
        self.hung_up |= flags.contains(EventFlags::HUP);
    }

    /// Whether there may be something to read.
    pub(crate) fn is_readable(&self) -> bool {
        self.readable
    }

    /// Whether there may be room.
    pub(crate) fn is_writable(&self) -> bool {
        self.writable
    }

    /// There is nothing to read for now.
    pub(crate) fn drained(&mut self) {
        self.readable = false;
    }

    /// There is no room. A port tells of every buffer that the host has taken, so it is asked to tell only from the first
    /// time on that this matters.
    pub(crate) fn full(&mut self, epoll: &OwnedFd) -> Result<(), Errno> {
        self.writable = false;
        if !self.interest.contains(EventFlags::OUT) {
            self.interest |= EventFlags::OUT;
            epoll::modify(epoll, &self.descriptor, EventData::new_u64(self.token), self.interest)?;
        }
        Ok(())
    }
}

/// Bytes that have been read and not yet written.
struct Buffer {
    bytes: Box<[u8; BUFFER_BYTES]>,
    start: usize,
    end: usize,
}

impl Buffer {
    fn new() -> Self {
        Self { bytes: Box::new([0; BUFFER_BYTES]), start: 0, end: 0 }
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    fn fill(&mut self, from: &End) -> Result<usize, Errno> {
        self.clear();
        self.end = read(&from.descriptor, &mut self.bytes[..])?;
        Ok(self.end)
    }

    /// The same with line ends rewritten. Of what was read nothing may be left.
    fn fill_lines(&mut self, from: &End, line_ends: &mut LineEnds) -> Result<usize, Errno> {
        self.clear();
        let length = read(&from.descriptor, &mut self.bytes[1..])?;
        let lines = line_ends.rewrite(&mut self.bytes[..=length]);
        (self.start, self.end) = (lines.start, lines.end);
        Ok(length)
    }

    fn drain(&mut self, to: &End) -> Result<usize, Errno> {
        let written = write(&to.descriptor, &self.bytes[self.start..self.end])?;
        self.start += written;
        Ok(written)
    }
}

/// From the workload to a port of the host.
pub(crate) struct Output {
    /// `None` once it has ended, or once nobody reads it on the host.
    pub(crate) source: Option<End>,
    /// A terminal's bytes go through a buffer; a pipe's pages are handed to the driver as they are.
    buffer: Option<Buffer>,
    /// A console whose reader wants lines.
    line_ends: Option<LineEnds>,
    /// The workload has ended: nobody opens the terminal again.
    is_last: bool,
    /// Bytes given to the port.
    pub(crate) bytes: u64,
}

impl Output {
    /// Of a pipe's read end.
    pub(crate) fn of_pipe(source: End) -> Self {
        Self { source: Some(source), buffer: None, line_ends: None, is_last: false, bytes: 0 }
    }

    /// Of a terminal's master; `lines` if its reader expects the line ends of a pipe.
    pub(crate) fn of_terminal(source: End, lines: bool) -> Self {
        let line_ends = lines.then(LineEnds::default);
        Self { source: Some(source), buffer: Some(Buffer::new()), line_ends, is_last: false, bytes: 0 }
    }

    /// The workload has ended, with all that could write.
    pub(crate) fn expect_end(&mut self) {
        self.is_last = true;
        // A terminal that was closed meanwhile will not tell again.
        if let Some(source) = self.source.as_mut().filter(|_| self.buffer.is_some()) {
            source.readable = true;
        }
    }

    /// Moves what can be moved.
    pub(crate) fn pump(&mut self, port: &mut End, epoll: &OwnedFd) -> Result<(), Errno> {
        match &mut self.buffer {
            None => self.splice(port, epoll),
            Some(_) => self.copy(port, epoll),
        }
    }

    fn splice(&mut self, port: &mut End, epoll: &OwnedFd) -> Result<(), Errno> {
        while let Some(source) = &mut self.source
            && source.readable
            && port.writable
        {
            match splice(&source.descriptor, None, &port.descriptor, None, SPLICE_BYTES, SpliceFlags::NONBLOCK) {
                // Empty; it was the end if nobody can write to it any more.
                Ok(0) if source.hung_up => self.source = None,
                Ok(moved) => {
                    self.bytes += moved as u64;
                    // Less than there was room for: that was all. A hung-up pipe is asked once more, for its end.
                    source.readable = moved == SPLICE_BYTES || source.hung_up;
                }
                Err(Errno::AGAIN) => port.full(epoll)?,
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    fn copy(&mut self, port: &mut End, epoll: &OwnedFd) -> Result<(), Errno> {
        let Some(buffer) = &mut self.buffer else { return Ok(()) };
        while let Some(source) = &mut self.source {
            if buffer.is_empty() {
                if !source.readable {
                    break;
                }
                let filled = match &mut self.line_ends {
                    Some(line_ends) => buffer.fill_lines(source, line_ends),
                    None => buffer.fill(source),
                };
                match filled {
                    // Nobody has the terminal open: its end, or a program has hung it up to open it anew.
                    Ok(0) | Err(Errno::IO) if self.is_last => self.source = None,
                    Ok(0) | Err(Errno::IO) => source.readable = false,
                    Ok(_) => {}
                    Err(Errno::AGAIN) => source.readable = false,
                    Err(errno) => return Err(errno),
                }
            } else if port.writable {
                match buffer.drain(port) {
                    Ok(written) => self.bytes += written as u64,
                    Err(Errno::AGAIN) => port.full(epoll)?,
                    Err(errno) => return Err(errno),
                }
            } else {
                break;
            }
        }
        Ok(())
    }
}

/// From the host's port to the workload.
pub(crate) struct Input {
    /// `None` once it is closed: by the host's end of file, or by the workload, and then the rest is thrown away.
    pub(crate) sink: Option<End>,
    /// A terminal is not closed at the end of the input: it is sent the end-of-file character.
    terminal: bool,
    buffer: Buffer,
    received: u64,
    /// The host's input ends after so many bytes in all.
    end: Option<u64>,
}

impl Input {
    /// Into a pipe's write end or a terminal's master.
    pub(crate) fn new(sink: End, terminal: bool) -> Self {
        Self { sink: Some(sink), terminal, buffer: Buffer::new(), received: 0, end: None }
    }

    /// The host's input ends after `bytes` in all.
    pub(crate) fn end_after(&mut self, bytes: u64) {
        self.end = Some(bytes);
    }

    /// Moves what can be moved.
    pub(crate) fn pump(&mut self, port: &mut End, epoll: &OwnedFd) -> Result<(), Errno> {
        loop {
            if self.buffer.is_empty() {
                if self.end.is_some_and(|end| self.received >= end) {
                    self.end = None;
                    if !self.terminal {
                        self.sink = None;
                        return Ok(());
                    }
                    self.buffer.bytes[0] = END_OF_FILE;
                    (self.buffer.start, self.buffer.end) = (0, 1);
                    continue;
                }
                if !port.readable {
                    return Ok(());
                }
                match self.buffer.fill(port) {
                    // The driver reads 0 as long as the host has not opened its side.
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
                return Ok(());
            }
            match self.buffer.drain(sink) {
                Ok(_) => {}
                Err(Errno::AGAIN) => sink.full(epoll)?,
                Err(Errno::PIPE | Errno::IO) => self.sink = None,
                Err(errno) => return Err(errno),
            }
        }
    }
}
