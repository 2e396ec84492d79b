// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One named thread that runs workers: event-manager with a remote endpoint around it. Workers are added by the thread
//! that activates a device (a vCPU) and taken back by the one that resets it; both calls wait until it is done, so that
//! after a reset no thread touches that device's guest buffers any more.

use crate::virtio::Worker;
use event_manager::{EventManager, EventOps, Events, MutEventSubscriber, RemoteEndpoint, SubscriberId, SubscriberOps};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Duration;
use vmm_sys_util::epoll::EventSet;

/// An event loop could not be started, or does not run any more.
#[derive(Debug, thiserror::Error)]
pub enum EventLoopError {
    /// The host has no thread left.
    #[error("cannot start the thread {name}")]
    Thread {
        /// Name of the thread.
        name: String,
        /// Why.
        source: std::io::Error,
    },
    /// The host has no descriptor left, or the loop has ended.
    #[error(transparent)]
    Events(#[from] event_manager::Error),
}

/// A worker on a loop, until it is taken back.
#[derive(Debug)]
pub struct WorkerId(SubscriberId);

/// A running event loop; it ends when this is dropped.
#[derive(Debug)]
pub struct EventLoop {
    thread: Option<JoinHandle<()>>,
    handle: EventLoopHandle,
    stopping: Arc<AtomicBool>,
    /// Closed by the thread when it has dropped its workers.
    ended: Receiver<()>,
}

impl EventLoop {
    /// Starts a loop on a thread called `name` (at most 15 bytes are visible in `ps`).
    ///
    /// # Errors
    /// The host is out of threads or descriptors.
    pub fn spawn(name: &str) -> Result<Self, EventLoopError> {
        let manager = EventManager::<Subscriber>::new_with_capacity(32)?;
        let handle = EventLoopHandle { endpoint: manager.remote_endpoint() };
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopping);
        let (alive, ended) = channel::<()>();
        let run = move || {
            // Declared before the manager is moved in, so that it is dropped after it.
            let _alive = alive;
            let mut manager = manager;
            while !stop.load(Ordering::Acquire) {
                // epoll_wait on a descriptor of our own fails only with EINTR, which the manager hides.
                manager.run().expect("epoll waits on its own descriptor");
            }
            // Dropping the manager retires the workers, on the thread that ran them.
        };
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(run)
            .map_err(|source| EventLoopError::Thread { name: name.to_owned(), source })?;
        Ok(Self { thread: Some(thread), handle, stopping, ended })
    }

    /// To add workers and take them back. Outlives the loop; then its calls fail.
    #[must_use]
    pub fn handle(&self) -> EventLoopHandle {
        self.handle.clone()
    }

    /// Ends the loop: retires and drops its workers, and joins the thread.
    pub fn stop(mut self) {
        self.end();
    }

    /// Like [`stop`](Self::stop), but a thread that is still busy after `limit` (a disk that hangs) is left behind.
    /// Returns whether it ended.
    #[must_use]
    pub fn stop_within(mut self, limit: Duration) -> bool {
        self.ask_to_end();
        // Nothing is ever sent: the channel closes when the thread ends.
        let ended = self.ended.recv_timeout(limit) == Err(RecvTimeoutError::Disconnected);
        if !ended {
            // Detached: dropping what is left of this waits for nothing.
            self.thread = None;
        }
        ended
    }

    fn ask_to_end(&self) {
        self.stopping.store(true, Ordering::Release);
        // It fails only if the loop has ended already.
        let _ = self.handle.endpoint.kick();
    }

    fn end(&mut self) {
        self.ask_to_end();
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

/// The way to an [`EventLoop`] from other threads. Must not be used on the loop itself: a call waits for its answer.
#[derive(Clone, Debug)]
pub struct EventLoopHandle {
    endpoint: RemoteEndpoint<Subscriber>,
}

impl EventLoopHandle {
    /// Puts `worker` on the loop. It has been started when this returns.
    ///
    /// # Errors
    /// The loop has ended.
    pub fn add(&self, worker: Box<dyn Worker>) -> Result<WorkerId, EventLoopError> {
        let add = |ops: &mut dyn SubscriberOps<Subscriber = Subscriber>| {
            Ok::<_, event_manager::Error>(WorkerId(ops.add_subscriber(Subscriber { worker: Some(worker) })))
        };
        Ok(self.endpoint.call_blocking(add)?)
    }

    /// Takes a worker off the loop and drops it. When this returns it touches nothing any more.
    ///
    /// # Errors
    /// The loop has ended, and the worker with it.
    pub fn remove(&self, id: WorkerId) -> Result<(), EventLoopError> {
        let remove = move |ops: &mut dyn SubscriberOps<Subscriber = Subscriber>| {
            // A reset is no orderly end: the worker is dropped without being retired.
            let mut subscriber = ops.remove_subscriber(id.0)?;
            subscriber.worker = None;
            Ok::<_, event_manager::Error>(())
        };
        Ok(self.endpoint.call_blocking(remove)?)
    }
}

/// A worker in the hands of event-manager.
struct Subscriber {
    worker: Option<Box<dyn Worker>>,
}

/// event-manager's derives ask for it.
impl fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subscriber")
    }
}

impl MutEventSubscriber for Subscriber {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        let Some(worker) = &mut self.worker else { return };
        for source in worker.sources() {
            // Regular files and the like cannot be waited for (EPERM): they are always ready, and a worker tries before
            // it waits. Nothing else can fail but for want of kernel memory, and then the device stands still.
            if let Err(error) = ops.add(Events::with_data_raw(source.descriptor, source.token, source.events)) {
                log::debug!("descriptor {} is not waited for: {error}", source.descriptor);
            }
        }
        worker.start();
    }

    fn process(&mut self, events: Events, _: &mut EventOps<'_>) {
        if let Some(worker) = &mut self.worker {
            worker.process(events.data(), events.event_set());
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        if let Some(worker) = &mut self.worker {
            worker.retire();
        }
    }
}

/// A descriptor that a [`Worker`] waits for.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    descriptor: std::os::fd::RawFd,
    token: u32,
    events: EventSet,
}

impl Source {
    /// The kick of a queue: `token` is handed to the worker as long as the event descriptor has not been read.
    #[must_use]
    pub fn kick(descriptor: &impl std::os::fd::AsRawFd, token: u32) -> Self {
        Self { descriptor: descriptor.as_raw_fd(), token, events: EventSet::IN }
    }

    /// A host descriptor of which the worker wants to hear *changes* in either direction (edge-triggered): it tries
    /// first, and waits only after it was told that it would block.
    #[must_use]
    pub fn changes(descriptor: &impl std::os::fd::AsRawFd, token: u32) -> Self {
        let events = EventSet::IN | EventSet::OUT | EventSet::READ_HANG_UP | EventSet::EDGE_TRIGGERED;
        Self { descriptor: descriptor.as_raw_fd(), token, events }
    }
}

#[cfg(test)]
#[path = "event_loop_tests.rs"]
mod tests;
