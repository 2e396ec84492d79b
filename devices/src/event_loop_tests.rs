// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The event loop: adding is synchronous, so is taking back, and stopping retires.

use super::*;
use std::sync::mpsc::{Sender, channel};
use vmm_sys_util::eventfd::EventFd;

/// Tells what happens to it.
struct Teller {
    kick: EventFd,
    tell: Sender<&'static str>,
}

impl Worker for Teller {
    fn sources(&self) -> Vec<Source> {
        vec![Source::kick(&self.kick, 7)]
    }

    fn start(&mut self) {
        self.tell.send("start").unwrap();
    }

    fn process(&mut self, token: u32, _: EventSet) {
        assert_eq!((token, self.kick.read().unwrap()), (7, 1));
        self.tell.send("process").unwrap();
    }

    fn retire(&mut self) {
        self.tell.send("retire").unwrap();
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        let _ = self.tell.send("drop");
    }
}

fn teller() -> (Box<Teller>, EventFd, std::sync::mpsc::Receiver<&'static str>) {
    let kick = EventFd::new(libc::EFD_NONBLOCK).unwrap();
    let (tell, told) = channel();
    (Box::new(Teller { kick: kick.try_clone().unwrap(), tell }), kick, told)
}

#[test]
fn a_worker_is_started_kicked_and_gone_when_remove_returns() {
    let (worker, kick, told) = teller();
    let events = EventLoop::spawn("test-loop").unwrap();
    let id = events.handle().add(worker).unwrap();
    assert_eq!(told.try_recv(), Ok("start"));
    kick.write(1).unwrap();
    assert_eq!(told.recv(), Ok("process"));
    events.handle().remove(id).unwrap();
    assert_eq!(told.try_iter().collect::<Vec<_>>(), ["drop"]);
    kick.write(1).unwrap();
    events.stop();
    assert_eq!(told.try_recv().ok(), None);
}

#[test]
fn stopping_retires_the_workers_and_later_calls_fail() {
    let (worker, _kick, told) = teller();
    let events = EventLoop::spawn("test-loop").unwrap();
    let handle = events.handle();
    let id = handle.add(worker).unwrap();
    events.stop();
    assert_eq!(told.try_iter().collect::<Vec<_>>(), ["start", "retire", "drop"]);
    assert!(handle.remove(id).is_err());
    assert!(handle.add(teller().0).is_err());
}

/// Does not come back from its start until it is let go.
struct Stuck {
    started: Sender<()>,
    let_go: std::sync::mpsc::Receiver<()>,
}

impl Worker for Stuck {
    fn sources(&self) -> Vec<Source> {
        Vec::new()
    }

    fn start(&mut self) {
        self.started.send(()).unwrap();
        let _ = self.let_go.recv();
    }

    fn process(&mut self, _: u32, _: EventSet) {}
}

#[test]
fn a_loop_that_hangs_is_left_behind_and_one_that_does_not_is_joined() {
    let ((started, has_started), (let_go, wait)) = (channel(), channel());
    let events = EventLoop::spawn("test-loop").unwrap();
    let handle = events.handle();
    let adding = std::thread::spawn(move || handle.add(Box::new(Stuck { started, let_go: wait })).is_ok());
    has_started.recv().unwrap();
    assert!(!events.stop_within(Duration::from_millis(20)));
    let_go.send(()).unwrap();
    assert!(adding.join().unwrap());
    assert!(EventLoop::spawn("test-loop").unwrap().stop_within(Duration::from_secs(10)));
}
