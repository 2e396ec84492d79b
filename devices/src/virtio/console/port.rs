// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The configuration of a port, and the monitor of what goes through it. Built on `main`; the
//! monitor is shared between `main` and the `io` event loop.

use super::host_stream::HostStream;
use crate::log_sink::LogSink;
use std::fmt;
use std::io::Result;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use vmm_sys_util::eventfd::EventFd;

/// One port. Its number is its place in the list that the console is made from. A clone shares
/// descriptors and monitor.
#[derive(Clone, Debug)]
pub struct PortConfig {
    /// Name in the guest (`/sys/class/virtio-ports/*/name`).
    pub name: &'static str,
    /// The guest's kernel may use it as a console.
    pub is_console: bool,
    /// Source of the guest's input; `None` if there never is any.
    pub input: Option<PortInput>,
    /// Destination of the guest's output; `None` drops it.
    pub output: Option<PortOutput>,
    /// Counts what goes through.
    pub monitor: Arc<PortMonitor>,
}

/// The source of a port's input.
#[derive(Clone, Debug)]
pub struct PortInput(pub(super) Arc<HostStream>);

impl PortInput {
    /// Any descriptor that can be read: pipe, terminal, socket, file, device. Its file status flags
    /// are not changed.
    ///
    /// # Errors
    /// It cannot be examined.
    pub fn new(descriptor: OwnedFd) -> Result<Self> {
        Ok(Self(Arc::new(HostStream::for_reading(descriptor)?)))
    }
}

/// The destination of a port's output.
#[derive(Clone)]
pub enum PortOutput {
    /// Made by [`PortOutput::descriptor`].
    #[doc(hidden)]
    Stream(PortStream),
    /// A log, which never makes the guest wait.
    Log(Arc<dyn LogSink>),
}

/// A descriptor that is written without blocking.
#[derive(Clone, Debug)]
pub struct PortStream(pub(super) Arc<HostStream>);

impl PortOutput {
    /// Any descriptor that can be written: pipe, terminal, socket, file, device. Its file status
    /// flags are not changed. The process must ignore SIGPIPE, as Rust programs do.
    ///
    /// # Errors
    /// It cannot be examined.
    pub fn descriptor(descriptor: OwnedFd) -> Result<Self> {
        Ok(Self::Stream(PortStream(Arc::new(HostStream::for_writing(descriptor)?))))
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

/// What went through a port. Written on the `io` event loop, read anywhere; counts survive a reset
/// of the device.
#[derive(Debug)]
pub struct PortMonitor {
    /// Bytes that left the guest: accepted by the host side, or dropped because that has closed.
    pub to_host: AtomicU64,
    /// Bytes that were written to the guest's buffers.
    pub to_guest: AtomicU64,
    /// The input has ended; `to_guest` is final.
    pub input_ended: AtomicBool,
    /// The output has no reader any more or cannot be written: what the guest sends from now on is
    /// dropped.
    pub output_closed: AtomicBool,
    /// Signalled when the input ends, the output is closed, or the count of
    /// [`announce_at`](Self::announce_at) is reached.
    pub event: EventFd,
    announce_at: AtomicU64,
}

impl PortMonitor {
    /// A monitor of an unused port.
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

    /// Requests a signal once `to_host` is at least `bytes`. Returns whether it is already.
    pub fn announce_at(&self, bytes: u64) -> bool {
        // Either the worker's load sees this store, or this load sees the worker's count.
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
        // The write fails only when the counter is at its limit; a signal is pending then.
        let _ = self.event.write(1);
    }
}
