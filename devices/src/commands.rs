// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Commands from the host to a worker: a channel whose receiver is a source of the worker's event
//! loop. Any thread sends, the loop of the worker receives.
//!
//! A device makes the channel when it is built, so that its activation needs no descriptor. It
//! keeps the sender and hands a clone of the receiver to each worker; commands that are not
//! received survive a reset of the device.

use crate::event_loop::Source;
use std::collections::VecDeque;
use std::io::Result;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vmm_sys_util::eventfd::EventFd;

/// Commands that a channel holds; more are rejected, so that a worker that hangs costs no memory.
pub const MAX_COMMANDS: usize = 64;

/// A channel for commands of type `T`.
///
/// # Errors
/// The host has no descriptor left.
pub fn channel<T>() -> Result<(CommandSender<T>, CommandReceiver<T>)> {
    let event = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?;
    let shared = Arc::new(Shared { event, queue: Mutex::new(VecDeque::new()) });
    Ok((CommandSender(Arc::clone(&shared)), CommandReceiver(shared)))
}

#[derive(Debug)]
struct Shared<T> {
    event: EventFd,
    queue: Mutex<VecDeque<T>>,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, VecDeque<T>> {
        // No code of a command runs while it is held.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The host's end.
#[derive(Debug)]
pub struct CommandSender<T>(Arc<Shared<T>>);

impl<T> CommandSender<T> {
    /// Queues `command` and wakes the worker.
    ///
    /// # Errors
    /// [`MAX_COMMANDS`] are queued already; the command is given back.
    pub fn send(&self, command: T) -> std::result::Result<(), T> {
        let mut queue = self.0.lock();
        if queue.len() == MAX_COMMANDS {
            return Err(command);
        }
        queue.push_back(command);
        drop(queue);
        // The write fails only when the counter is at its limit; a wake-up is pending then.
        let _ = self.0.event.write(1);
        Ok(())
    }
}

impl<T> Clone for CommandSender<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// The worker's end.
#[derive(Debug)]
pub struct CommandReceiver<T>(Arc<Shared<T>>);

impl<T> CommandReceiver<T> {
    /// To be listed among the worker's sources.
    #[must_use]
    pub fn source(&self, token: u32) -> Source {
        Source::event(&self.0.event, token)
    }

    /// The next command. A worker receives until there is none left.
    #[must_use]
    pub fn receive(&self) -> Option<T> {
        self.0.lock().pop_front()
    }
}

impl<T> Clone for CommandReceiver<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event_loop::EventLoop;
    use crate::turn::Turn;
    use crate::virtio::Worker;
    use std::sync::mpsc;
    use vmm_sys_util::epoll::EventSet;

    /// Sends each command on.
    struct Forwarder {
        commands: CommandReceiver<u32>,
        forwarded: mpsc::Sender<u32>,
    }

    impl Worker for Forwarder {
        fn sources(&self) -> Vec<Source> {
            vec![self.commands.source(7)]
        }

        fn start(&mut self, _: &mut Turn<'_>) {}

        fn process(&mut self, token: u32, _: EventSet, _: &mut Turn<'_>) {
            assert_eq!(token, 7);
            while let Some(command) = self.commands.receive() {
                self.forwarded.send(command).unwrap();
            }
        }
    }

    #[test]
    fn commands_reach_the_worker_on_its_loop_in_order() {
        let (sender, commands) = channel().unwrap();
        let (forwarded, received) = mpsc::channel();
        let events = EventLoop::spawn("test-loop").unwrap();
        // Sent before there is a worker.
        sender.send(1).unwrap();
        events.handle().add(Box::new(Forwarder { commands, forwarded })).unwrap();
        assert_eq!(received.recv(), Ok(1));
        let other = sender.clone();
        std::thread::spawn(move || [2, 3].map(|command| other.send(command).unwrap())).join().unwrap();
        assert_eq!([received.recv(), received.recv()], [Ok(2), Ok(3)]);
    }

    #[test]
    fn full_channel_gives_the_command_back() {
        let (sender, receiver) = channel().unwrap();
        (0..MAX_COMMANDS).for_each(|command| sender.send(command).unwrap());
        assert_eq!(sender.send(99), Err(99));
        assert_eq!(receiver.receive(), Some(0));
        sender.send(99).unwrap();
    }
}
