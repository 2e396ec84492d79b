// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The host's end of the device: the socket that programs of the host connect to, the ones that
//! the guest connects to, and one epoll descriptor for all of them, because a worker's sources
//! cannot change. Made on `main`, used on the event loop of the device. It outlives a worker.

use crate::event_loop::Source;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, connect, recv, send,
    socket_with,
};
use std::ffi::OsString;
use std::io::Result;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::time::{Duration, Instant};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::timerfd::TimerFd;

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);
/// Events that one call returns.
const MAX_EVENTS: usize = 32;
const LISTENER: u64 = u64::MAX;
const TIMER: u64 = u64::MAX - 1;
const INPUT: EventSet = EventSet::IN.union(EventSet::READ_HANG_UP).union(EventSet::EDGE_TRIGGERED);

/// Where the sockets of the host are.
#[derive(Debug)]
pub struct HostSockets {
    /// Listens; programs of the host connect to it. Non-blocking.
    pub listener: OwnedFd,
    /// The directory of the sockets.
    pub directory: OwnedFd,
    /// It is the working directory of the thread of the device's event loop.
    pub is_entered: bool,
    /// File name of the listener's socket. The guest's connections to port P go to `NAME_P` beside
    /// it.
    pub name: OsString,
}

/// What the epoll descriptor reports.
#[derive(Clone, Copy, Debug)]
pub(super) enum HostEvent {
    /// There may be clients to accept.
    Listener,
    Timer,
    /// The socket that is watched by this number.
    Socket(usize, EventSet),
}

#[derive(Debug)]
pub(super) struct Host {
    sockets: HostSockets,
    epoll: Epoll,
    timer: TimerFd,
    /// When the timer expires.
    wakes_at: Option<Instant>,
}

impl Host {
    pub(super) fn new(sockets: HostSockets) -> Result<Self> {
        let new = Self { sockets, epoll: Epoll::new()?, timer: TimerFd::new()?, wakes_at: None };
        let event = |number| EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, number);
        new.epoll.ctl(ControlOperation::Add, new.sockets.listener.as_raw_fd(), event(LISTENER))?;
        new.epoll.ctl(ControlOperation::Add, new.timer.as_raw_fd(), event(TIMER))?;
        Ok(new)
    }

    pub(super) fn source(&self, token: u32) -> Source {
        Source::readable(&self.epoll, token)
    }

    /// What has happened since the last call, up to a limit.
    pub(super) fn events(&self) -> impl ExactSizeIterator<Item = HostEvent> + use<> {
        let mut events = [EpollEvent::default(); MAX_EVENTS];
        // It fails only with EINTR; what is ready stays so.
        let count = self.epoll.wait(0, &mut events).unwrap_or(0);
        events.into_iter().take(count).map(|event| match event.data() {
            LISTENER => HostEvent::Listener,
            TIMER => HostEvent::Timer,
            number => HostEvent::Socket(number as usize, event.event_set()),
        })
    }

    pub(super) fn accept(&self) -> Result<OwnedFd> {
        loop {
            match accept_with(&self.sockets.listener, FLAGS) {
                // The client has gone already.
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                accepted => return Ok(accepted?),
            }
        }
    }

    /// Connects to the socket of `port`. A socket whose queue is full refuses as well.
    pub(super) fn connect(&self, port: u32) -> Result<OwnedFd> {
        let mut path = match self.sockets.is_entered {
            true => b"./".to_vec(),
            false => format!("/proc/self/fd/{}/", self.sockets.directory.as_raw_fd()).into_bytes(),
        };
        path.extend(self.sockets.name.clone().into_vec());
        path.extend(format!("_{port}").into_bytes());
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, FLAGS, None)?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(socket)
    }

    /// Watches `socket` for input, and for output if `output` is set, each as an edge. Closing it
    /// ends that.
    pub(super) fn watch(&self, socket: &OwnedFd, number: usize, output: bool, is_new: bool) -> Result<()> {
        let operation = if is_new { ControlOperation::Add } else { ControlOperation::Modify };
        let events = if output { INPUT | EventSet::OUT } else { INPUT };
        self.epoll.ctl(operation, socket.as_raw_fd(), EpollEvent::new(events, number as u64))
    }

    /// Reports [`HostEvent::Timer`] at `deadline`, or before it.
    pub(super) fn wake_at(&mut self, deadline: Instant) {
        if self.wakes_at.is_some_and(|before| before <= deadline) {
            return;
        }
        // Zero would disarm it.
        let delay = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        // It fails for invalid durations only.
        let _ = self.timer.reset(delay, None);
        self.wakes_at = Some(deadline);
    }

    /// The timer has expired.
    pub(super) fn woke(&mut self) {
        self.wakes_at = None;
    }
}

/// Reads what has come, again if a signal interrupts it; `WouldBlock` if nothing has.
pub(super) fn receive(socket: impl AsFd, data: &mut [u8], flags: RecvFlags) -> Result<usize> {
    loop {
        match recv(&socket, &mut *data, flags | RecvFlags::DONTWAIT) {
            Err(Errno::INTR) => {}
            received => return Ok(received?.1),
        }
    }
}

/// Writes what fits, again if a signal interrupts it; `WouldBlock` if nothing does.
pub(super) fn write(socket: impl AsFd, data: &[u8]) -> Result<usize> {
    loop {
        match send(&socket, data, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            sent => return Ok(sent?),
        }
    }
}
