// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the machine says about a port, and what it can learn about one while it is used. Built on `main`; the monitor is
//! shared between `main` and the `io` event loop.

use super::host_stream::HostStream;
use crate::log_sink::LogSink;
use std::fmt;
use std::io::Result;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use vmm_sys_util::eventfd::EventFd;

/// One port. Its number is its place in the list that the console is made from.
#[derive(Debug)]
pub struct PortConfig {
    /// As the driver shows it.
    pub name: &'static str,
    /// The guest's kernel may use it as a console.
    pub is_console: bool,
    /// Where the guest's input comes from; none means that there never is any.
    pub input: Option<PortInput>,
    /// Where the guest's output goes; none means that it is dropped.
    pub output: Option<PortOutput>,
    /// Tells what went through.
    pub monitor: Arc<PortMonitor>,
}

/// The source of a port's input.
#[derive(Debug)]
pub struct PortInput(pub(super) HostStream);

impl PortInput {
    /// Any descriptor that can be read: pipe, terminal, socket, file, device. Its file status flags are not changed.
    ///
    /// # Errors
    /// It cannot be examined.
    pub fn new(descriptor: OwnedFd) -> Result<Self> {
        HostStream::for_reading(descriptor).map(Self)
    }
}

/// The destination of a port's output.
pub enum PortOutput {
    /// Made by [`PortOutput::descriptor`].
    #[doc(hidden)]
    Stream(PortStream),
    /// A log, which takes everything at once.
    Log(Arc<dyn LogSink>),
}

/// A descriptor that is written without blocking.
#[derive(Debug)]
pub struct PortStream(pub(super) HostStream);

impl PortOutput {
    /// Any descriptor that can be written: pipe, terminal, socket, file, device. Its file status flags are not changed.
    /// The process must ignore SIGPIPE, as Rust programs do.
    ///
    /// # Errors
    /// It cannot be examined.
    pub fn descriptor(descriptor: OwnedFd) -> Result<Self> {
        Ok(Self::Stream(PortStream(HostStream::for_writing(descriptor)?)))
    }
}

impl fmt::Debug for PortOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(stream) => stream.fmt(f),
            Self::Log(_) => f.write_str("Log"),
        }
    }
}

/// What went through a port. Written on the `io` event loop, read anywhere; counts survive a reset of the device.
#[derive(Debug)]
pub struct PortMonitor {
    /// Bytes that left the guest: taken by the host side, or dropped because it has none any more.
    pub to_host: AtomicU64,
    /// Bytes that were put into the guest's buffers.
    pub to_guest: AtomicU64,
    /// The input has ended: `to_guest` does not change any more.
    pub input_ended: AtomicBool,
    /// The reader of the output went away, or it cannot be written: what the guest sends on is dropped.
    pub output_closed: AtomicBool,
    /// Signalled when the input ends, the output is closed, or the count of [`announce_at`](Self::announce_at) is reached.
    pub event: EventFd,
    announce_at: AtomicU64,
}

impl PortMonitor {
    /// A monitor that has seen nothing.
    ///
    /// # Errors
    /// The host has no descriptor left.
    pub fn new() -> Result<Self> {
        Ok(Self {
            to_host: AtomicU64::new(0),
            to_guest: AtomicU64::new(0),
            input_ended: AtomicBool::new(false),
            output_closed: AtomicBool::new(false),
            event: EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?,
            announce_at: AtomicU64::new(u64::MAX),
        })
    }

    /// Asks for a signal once `to_host` is at least `bytes`. Returns whether it is already.
    pub fn announce_at(&self, bytes: u64) -> bool {
        // Either this store is seen by the worker's load, or the worker's count is seen by this load.
        self.announce_at.store(bytes, Ordering::SeqCst);
        self.to_host.load(Ordering::SeqCst) >= bytes
    }

    pub(super) fn add_to_host(&self, bytes: usize) {
        let before = self.to_host.fetch_add(bytes as u64, Ordering::SeqCst);
        let wanted = self.announce_at.load(Ordering::SeqCst);
        if before < wanted && before + bytes as u64 >= wanted {
            self.signal();
        }
    }

    pub(super) fn add_to_guest(&self, bytes: usize) {
        self.to_guest.fetch_add(bytes as u64, Ordering::SeqCst);
    }

    pub(super) fn end_input(&self) {
        if !self.input_ended.swap(true, Ordering::SeqCst) {
            self.signal();
        }
    }

    pub(super) fn close_output(&self) {
        if !self.output_closed.swap(true, Ordering::SeqCst) {
            self.signal();
        }
    }

    fn signal(&self) {
        // It fails only when the counter is at its limit; then it is readable.
        let _ = self.event.write(1);
    }
}
