// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One named thread that runs workers: event-manager with a remote endpoint around it. The thread
//! that activates a device (a vCPU) adds its workers, and the one that resets it takes them back.
//! Both calls wait until it is done, so that no thread touches a device's guest buffers after a
//! reset.

use crate::turn::Turn;
use crate::virtio::Worker;
use event_manager::{EventManager, EventOps, Events, MutEventSubscriber, RemoteEndpoint, SubscriberId, SubscriberOps};
use std::fmt;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Duration;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::EventFd;

/// Events that one wait returns.
const MAX_READY_EVENTS: usize = 32;

/// An event loop cannot start, or cannot run a worker.
#[derive(Debug, thiserror::Error)]
pub enum EventLoopError {
    /// The host has no thread left.
    #[error("cannot start the thread {name}")]
    Thread {
        /// Name of the thread.
        name: String,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// The host has no descriptor left.
    #[error("cannot create the event loop {name}")]
    Create {
        /// Name of the thread.
        name: String,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// A descriptor cannot be waited for (no kernel memory, `fs.epoll.max_user_watches` reached).
    #[error("cannot wait for descriptor {descriptor}")]
    Watch {
        /// The descriptor.
        descriptor: RawFd,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// The loop has ended, and its workers with it.
    #[error("the event loop has ended")]
    Ended,
}

/// For calls from other threads, which fail only when there is no loop any more.
impl From<event_manager::Error> for EventLoopError {
    fn from(_: event_manager::Error) -> Self {
        Self::Ended
    }
}

/// Without event-manager's text, which repeats its source.
fn io_error(error: event_manager::Error) -> std::io::Error {
    match error {
        event_manager::Error::Epoll(errno) | event_manager::Error::EventFd(errno) => errno.into(),
        error => std::io::Error::other(error),
    }
}

/// A worker on a loop, until it is taken back.
#[derive(Debug)]
pub struct WorkerId(SubscriberId);

/// A running event loop; it ends when this is dropped.
#[derive(Debug)]
pub struct EventLoop {
    thread: Option<JoinHandle<()>>,
    handle: EventLoopHandle,
    /// Closed by the thread when it has dropped its workers.
    ended: Receiver<()>,
}

impl EventLoop {
    /// Starts a loop on a thread called `name` (at most 15 bytes are visible in `ps`).
    ///
    /// # Errors
    /// The host is out of threads or descriptors.
    pub fn spawn(name: &str) -> Result<Self, EventLoopError> {
        let manager = EventManager::<Subscriber>::new_with_capacity(MAX_READY_EVENTS)
            .map_err(|error| EventLoopError::Create { name: name.to_owned(), source: io_error(error) })?;
        let stopping = Arc::new(AtomicBool::new(false));
        let handle = EventLoopHandle { endpoint: manager.remote_endpoint(), stopping: Arc::clone(&stopping) };
        let (alive, ended) = channel::<()>();
        let run = move || {
            // Declared before the manager is moved in, so that it is dropped after it.
            let _alive = alive;
            let mut manager = manager;
            while !stopping.load(Ordering::Acquire) {
                // epoll_wait on a descriptor of our own fails only with EINTR, which the manager
                // hides.
                manager.run().expect("epoll waits on its own descriptor");
            }
            // Dropping the manager drains the workers, on the thread that ran them.
        };
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(run)
            .map_err(|source| EventLoopError::Thread { name: name.to_owned(), source })?;
        Ok(Self { thread: Some(thread), handle, ended })
    }

    /// Adds workers and takes them back. Outlives the loop; then its calls fail.
    #[must_use]
    pub fn handle(&self) -> EventLoopHandle {
        self.handle.clone()
    }

    /// Ends the loop: ends the current turn, drains and drops the workers, and joins the thread.
    pub fn stop(mut self) {
        self.end();
    }

    /// Like [`stop`](Self::stop), but a thread that is still busy after `limit` (a disk that hangs)
    /// is left behind. Returns whether it ended.
    #[must_use]
    pub fn stop_within(mut self, limit: Duration) -> bool {
        self.request_end();
        // Nothing is ever sent: the channel closes when the thread ends.
        let ended = self.ended.recv_timeout(limit) == Err(RecvTimeoutError::Disconnected);
        if !ended {
            // Detached: the rest of this is dropped without waiting.
            self.thread = None;
        }
        ended
    }

    /// Name of the thread.
    #[must_use]
    pub fn name(&self) -> &str {
        self.thread.as_ref().and_then(|thread| thread.thread().name()).unwrap_or_default()
    }

    /// Requests the end without waiting for it, so that several loops can end at the same time. One of the stops must
    /// follow.
    pub fn request_end(&self) {
        self.handle.stopping.store(true, Ordering::Release);
        // It fails only if the loop has ended already.
        let _ = self.handle.endpoint.kick();
    }

    fn end(&mut self) {
        self.request_end();
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        self.end();
    }
}

/// Access to an [`EventLoop`] from other threads. Must not be used on the loop itself: each call
/// waits for the loop.
#[derive(Clone, Debug)]
pub struct EventLoopHandle {
    endpoint: RemoteEndpoint<Subscriber>,
    stopping: Arc<AtomicBool>,
}

impl EventLoopHandle {
    /// Puts `worker` on the loop. It has been started when this returns. After an error it has been
    /// dropped.
    ///
    /// # Errors
    /// The loop has ended, or one of the worker's sources cannot be waited for.
    pub fn add(&self, worker: Box<dyn Worker>) -> Result<WorkerId, EventLoopError> {
        let subscriber = Subscriber { worker: Some(worker), stopping: Arc::clone(&self.stopping), error: None };
        let add = move |ops: &mut dyn SubscriberOps<Subscriber = Subscriber>| {
            let id = ops.add_subscriber(subscriber);
            match ops.subscriber_mut(id)?.error.take() {
                None => Ok(WorkerId(id)),
                Some(error) => {
                    // The worker has not started, so there is nothing to drain.
                    ops.remove_subscriber(id)?.worker = None;
                    Err(error)
                }
            }
        };
        self.endpoint.call_blocking(add)
    }

    /// Takes a worker off the loop and gives it back as it is, not drained. When this returns, the
    /// worker runs on no thread. It can be drained, dropped, or put on a loop again.
    ///
    /// # Errors
    /// The loop has ended, and the worker with it.
    pub fn take(&self, id: WorkerId) -> Result<Box<dyn Worker>, EventLoopError> {
        let take = move |ops: &mut dyn SubscriberOps<Subscriber = Subscriber>| {
            let worker = ops.remove_subscriber(id.0)?.worker.take();
            Ok::<_, EventLoopError>(worker.expect("a subscriber has its worker until it is taken"))
        };
        self.endpoint.call_blocking(take)
    }

    /// Runs `task` on the loop's thread, and returns what it returned.
    ///
    /// # Errors
    /// The loop has ended.
    pub fn run<T: Send + 'static>(&self, task: impl FnOnce() -> T + Send + 'static) -> Result<T, EventLoopError> {
        self.endpoint.call_blocking(move |_| Ok::<T, EventLoopError>(task()))
    }
}

/// A worker as event-manager's subscriber.
struct Subscriber {
    worker: Option<Box<dyn Worker>>,
    stopping: Arc<AtomicBool>,
    /// Set by `init`, which cannot return it.
    error: Option<EventLoopError>,
}

/// Required by event-manager's derives.
impl fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subscriber")
    }
}

impl MutEventSubscriber for Subscriber {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        let Some(worker) = &mut self.worker else { return };
        for Source { descriptor, token, events } in worker.sources() {
            match ops.add(Events::with_data_raw(descriptor, token, events)) {
                Ok(()) => {}
                // Regular files and the like are always ready, and a worker tries before it waits.
                Err(event_manager::Error::Epoll(error)) if error.errno() == libc::EPERM => {}
                Err(error) => {
                    self.error = Some(EventLoopError::Watch { descriptor, source: io_error(error) });
                    return;
                }
            }
        }
        worker.start(&mut Turn::new(&self.stopping));
    }

    fn process(&mut self, events: Events, _: &mut EventOps<'_>) {
        if let Some(worker) = &mut self.worker {
            worker.process(events.data(), events.event_set(), &mut Turn::new(&self.stopping));
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        if let Some(worker) = &mut self.worker {
            worker.drain();
        }
    }
}

/// A descriptor that a [`Worker`] waits for. All are edge-triggered: a worker never has to read an
/// event descriptor to silence it, and a descriptor that hung up cannot make the loop spin.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    descriptor: RawFd,
    token: u32,
    events: EventSet,
}

impl Source {
    /// An event descriptor, e.g. of a queue or of [`commands`](crate::commands): each write to it
    /// is one call of the worker with `token`, or shares a call with writes just before.
    #[must_use]
    pub fn event(event: &EventFd, token: u32) -> Self {
        Self { descriptor: event.as_raw_fd(), token, events: EventSet::IN | EventSet::EDGE_TRIGGERED }
    }

    /// A host descriptor that the worker reads. The worker tries first, and waits only after a call
    /// would have blocked.
    #[must_use]
    pub fn readable(descriptor: &impl AsRawFd, token: u32) -> Self {
        let events = EventSet::IN | EventSet::READ_HANG_UP | EventSet::EDGE_TRIGGERED;
        Self { descriptor: descriptor.as_raw_fd(), token, events }
    }

    /// A host descriptor whose changes the worker handles in both directions. The worker tries
    /// first, and waits only after a call would have blocked.
    #[must_use]
    pub fn changes(descriptor: &impl AsRawFd, token: u32) -> Self {
        let events = EventSet::IN | EventSet::OUT | EventSet::READ_HANG_UP | EventSet::EDGE_TRIGGERED;
        Self { descriptor: descriptor.as_raw_fd(), token, events }
    }
}

#[cfg(test)]
#[path = "event_loop_tests.rs"]
mod tests;
