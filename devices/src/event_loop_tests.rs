// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The event loop: adding and taking back are synchronous, stopping drains, and no worker is
//! silently left unwatched.

use super::*;
use std::sync::mpsc::{Sender, channel};

/// Reports its calls.
struct Reporter {
    event: EventFd,
    reports: Sender<&'static str>,
}

impl Worker for Reporter {
    fn sources(&self) -> Vec<Source> {
        vec![Source::event(&self.event, 7)]
    }

    fn start(&mut self, _: &mut Turn<'_>) {
        self.reports.send("start").unwrap();
    }

    fn process(&mut self, token: u32, _: EventSet, _: &mut Turn<'_>) {
        assert_eq!((token, self.event.read().unwrap()), (7, 1));
        self.reports.send("process").unwrap();
    }

    fn drain(&mut self) {
        self.reports.send("drain").unwrap();
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        let _ = self.reports.send("drop");
    }
}

fn reporter() -> (Box<Reporter>, EventFd, std::sync::mpsc::Receiver<&'static str>) {
    let event = EventFd::new(libc::EFD_NONBLOCK).unwrap();
    let (reports, received) = channel();
    (Box::new(Reporter { event: event.try_clone().unwrap(), reports }), event, received)
}

#[test]
fn task_runs_on_the_thread_of_the_loop() {
    let events = EventLoop::spawn("test-loop").unwrap();
    let name = events.handle().run(|| std::thread::current().name().map(str::to_owned)).unwrap();
    assert_eq!(name.as_deref(), Some("test-loop"));
    let handle = events.handle();
    events.stop();
    assert!(matches!(handle.run(|| ()), Err(EventLoopError::Ended)));
}

#[test]
fn worker_is_started_called_and_off_the_loop_when_take_returns() {
    let (worker, event, reports) = reporter();
    let events = EventLoop::spawn("test-loop").unwrap();
    let id = events.handle().add(worker).unwrap();
    assert_eq!(reports.try_recv(), Ok("start"));
    event.write(1).unwrap();
    assert_eq!(reports.recv(), Ok("process"));
    drop(events.handle().take(id).unwrap());
    assert_eq!(reports.try_iter().collect::<Vec<_>>(), ["drop"]);
    event.write(1).unwrap();
    events.stop();
    assert_eq!(reports.try_recv().ok(), None);
}

#[test]
fn worker_that_is_taken_can_be_drained_and_put_on_another_loop() {
    let (worker, event, reports) = reporter();
    let first = EventLoop::spawn("first").unwrap();
    let id = first.handle().add(worker).unwrap();
    let mut worker = first.handle().take(id).unwrap();
    worker.drain();
    first.stop();
    // Not lost while the worker is on no loop.
    event.write(1).unwrap();
    let second = EventLoop::spawn("second").unwrap();
    second.handle().add(worker).unwrap();
    assert_eq!([(); 4].map(|()| reports.recv().unwrap()), ["start", "drain", "start", "process"]);
}

#[test]
fn stop_drains_the_workers_and_later_calls_fail() {
    let (worker, _event, reports) = reporter();
    let events = EventLoop::spawn("test-loop").unwrap();
    let handle = events.handle();
    let id = handle.add(worker).unwrap();
    events.stop();
    assert_eq!(reports.try_iter().collect::<Vec<_>>(), ["start", "drain", "drop"]);
    assert!(matches!(handle.take(id), Err(EventLoopError::Ended)));
    assert!(matches!(handle.add(reporter().0), Err(EventLoopError::Ended)));
}

/// Waits for one descriptor.
struct Watcher(RawFd, Sender<&'static str>);

impl Worker for Watcher {
    fn sources(&self) -> Vec<Source> {
        vec![Source::changes(&self.0, 0)]
    }

    fn start(&mut self, _: &mut Turn<'_>) {
        self.1.send("start").unwrap();
    }

    fn process(&mut self, _: u32, _: EventSet, _: &mut Turn<'_>) {}

    fn drain(&mut self) {
        let _ = self.1.send("drain");
    }
}

#[test]
fn worker_that_cannot_be_watched_is_an_error_and_not_started() {
    let events = EventLoop::spawn("test-loop").unwrap();
    let (reports, received) = channel();
    let error = events.handle().add(Box::new(Watcher(-1, reports))).unwrap_err();
    assert!(matches!(error, EventLoopError::Watch { descriptor: -1, .. }), "{error}");
    assert_eq!(received.recv().ok(), None, "it is dropped, neither started nor drained");
}

#[test]
fn regular_file_need_not_be_watched() {
    let file = tempfile::tempfile().unwrap();
    let events = EventLoop::spawn("test-loop").unwrap();
    let (reports, received) = channel();
    events.handle().add(Box::new(Watcher(file.as_raw_fd(), reports))).unwrap();
    assert_eq!(received.recv(), Ok("start"));
}

/// Works in short steps until its turn is over, and wants more turns for ever.
struct Busy {
    event: EventFd,
    turns: Sender<&'static str>,
}

impl Worker for Busy {
    fn sources(&self) -> Vec<Source> {
        vec![Source::event(&self.event, 0)]
    }

    fn start(&mut self, _: &mut Turn<'_>) {}

    fn process(&mut self, _: u32, _: EventSet, turn: &mut Turn<'_>) {
        while !turn.is_over() {
            std::thread::sleep(Duration::from_micros(100));
        }
        let _ = self.turns.send("busy");
        self.event.write(1).unwrap();
    }
}

#[test]
fn busy_worker_leaves_turns_to_others_and_does_not_delay_stop() {
    let (worker, event, reports) = reporter();
    let (turns, busy) = channel();
    let events = EventLoop::spawn("test-loop").unwrap();
    let busy_event = EventFd::new(libc::EFD_NONBLOCK).unwrap();
    let wake = busy_event.try_clone().unwrap();
    events.handle().add(Box::new(Busy { event: busy_event, turns })).unwrap();
    events.handle().add(worker).unwrap();
    wake.write(1).unwrap();
    assert_eq!(busy.recv(), Ok("busy"));
    event.write(1).unwrap();
    assert_eq!([reports.recv(), reports.recv()], [Ok("start"), Ok("process")]);
    assert!(events.stop_within(Duration::from_secs(10)));
}

/// Does not return from its start until it is released.
struct Stuck {
    started: Sender<()>,
    release: std::sync::mpsc::Receiver<()>,
}

impl Worker for Stuck {
    fn sources(&self) -> Vec<Source> {
        Vec::new()
    }

    fn start(&mut self, _: &mut Turn<'_>) {
        self.started.send(()).unwrap();
        let _ = self.release.recv();
    }

    fn process(&mut self, _: u32, _: EventSet, _: &mut Turn<'_>) {}
}

#[test]
fn loop_that_hangs_is_left_behind_and_any_other_is_joined() {
    let ((started, has_started), (release, wait)) = (channel(), channel());
    let events = EventLoop::spawn("test-loop").unwrap();
    let handle = events.handle();
    let adding = std::thread::spawn(move || handle.add(Box::new(Stuck { started, release: wait })).is_ok());
    has_started.recv().unwrap();
    assert!(!events.stop_within(Duration::from_millis(20)));
    release.send(()).unwrap();
    assert!(adding.join().unwrap());
    assert!(EventLoop::spawn("test-loop").unwrap().stop_within(Duration::from_secs(10)));
}
