// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests of [`super`]: against the real socket, served on another thread.

use super::*;
use crate::api::control_socket::{ControlSocket, Stats};
use crate::api::server::{Notice, Response};
use crate::state::counters::Counters;
use crate::state::end::End;
use crate::state::lifecycle::Lifecycle;
use crate::state::status::{State, Status};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

/// A run that refuses whatever concerns the machine, until the drop, which is its end.
struct Run {
    entry: tempfile::TempDir,
    over: std::sync::Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Client {
    /// An answer that goes on, line by line, until `each` says that it is enough or the run ends.
    fn follow<T: DeserializeOwned>(mut self, path: &str, mut each: impl FnMut(T) -> bool) -> Result<(), ClientError> {
        let Body::Chunks = self.begin("GET", path, &(), "")? else { panic!("{path} does not go on") };
        self.stream.get_ref().set_read_timeout(None).unwrap();
        // Each chunk is a line; the server sees to that.
        while let Some(line) = self.chunk().map_err(ClientError::Answer)? {
            if !each(serde_json::from_slice(&line).unwrap()) {
                break;
            }
        }
        Ok(())
    }
}

impl Run {
    fn start() -> Self {
        let entry = tempfile::tempdir().unwrap();
        let over = std::sync::Arc::new(AtomicBool::new(false));
        let mut socket = ControlSocket::listen(entry.path(), None).unwrap();
        let mut lifecycle = Lifecycle::begin(entry.path(), Status::sample(), None);
        let flag = over.clone();
        let thread = thread::spawn(move || {
            while !flag.load(Ordering::SeqCst) {
                for notice in socket.serve(&mut lifecycle, Counters::default) {
                    if let Notice::Call(client, _) = notice {
                        socket.server.answer(client, &Response::refusal(409, "not now"));
                    }
                }
                thread::yield_now();
            }
            lifecycle.end(&End::killed("power was cut"), Counters::default());
            socket.finish(lifecycle.status());
        });
        Self { entry, over, thread: Some(thread) }
    }

    fn connect(&self) -> Client {
        Client::connect(self.entry.path()).unwrap()
    }

    fn end(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap();
    }
}

#[test]
fn one_connection_asks_again_and_again_and_refusals_say_why() {
    let mut run = Run::start();
    let mut client = run.connect();
    for _ in 0..3 {
        let status: Status = client.ask("GET", "/v1/status", &()).unwrap();
        assert_eq!(status.id, "web");
        let refused = client.ask::<Status>("POST", "/v1/pause", &()).unwrap_err();
        assert!(matches!(&refused, ClientError::Refused(409, _)) && refused.to_string() == "not now", "{refused:?}");
    }
    run.end();
    assert!(matches!(client.ask::<Status>("GET", "/v1/status", &()), Err(ClientError::Answer(_))));
    assert!(matches!(Client::connect(run.entry.path()), Err(ClientError::Connect(_))));
}

#[test]
fn a_stream_is_followed_to_the_end_of_the_run_and_the_end_is_waited_for() {
    let mut run = Run::start();
    let (events, wait, mut probe) = (run.connect(), run.connect(), run.connect());
    let follower = thread::spawn(move || {
        let mut states = Vec::new();
        events.follow("/v1/events", |status: Status| {
            states.push(status.state);
            true
        })?;
        Ok::<_, ClientError>(states)
    });
    let waiter = thread::spawn(move || wait.wait::<Status>("/v1/wait"));
    let mut lines = 0;
    run.connect()
        .follow("/v1/stats?stream=true", |_: Stats| {
            lines += 1;
            lines < 2
        })
        .unwrap();
    assert_eq!(lines, 2);
    let _: Status = probe.ask("GET", "/v1/status", &()).unwrap();
    run.end();
    assert_eq!(follower.join().unwrap().unwrap(), [State::Starting, State::Exited]);
    assert_eq!(waiter.join().unwrap().unwrap().state, State::Exited);
}
