// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests of [`super`]: against the real socket, served on another thread.

use super::*;
use crate::api::control_socket::{ControlSocket, Stats};
use crate::api::server::{ClientEvent, Response};
use crate::state::counters::Counters;
use crate::state::end::End;
use crate::state::lifecycle::Lifecycle;
use crate::state::status::{State, Status};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

/// A control socket that rejects commands, served on a thread.
struct Run {
    entry: tempfile::TempDir,
    ended: std::sync::Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Client {
    /// Reads lines of a stream until `each` returns false or the run ends.
    fn follow<T: DeserializeOwned>(mut self, path: &str, mut each: impl FnMut(T) -> bool) -> Result<(), ClientError> {
        let Body::Chunks = self.begin("GET", path, &(), "")? else { panic!("{path} is not a stream") };
        self.stream.get_ref().set_read_timeout(None).unwrap();
        // The server sends each line as one chunk.
        while let Some(line) = self.chunk().map_err(ClientError::Response)? {
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
        let ended = std::sync::Arc::new(AtomicBool::new(false));
        let mut socket = ControlSocket::listen(entry.path()).unwrap();
        let mut lifecycle = Lifecycle::begin(entry.path(), Status::sample(), None);
        let flag = ended.clone();
        let thread = thread::spawn(move || {
            while !flag.load(Ordering::SeqCst) {
                for (client, event) in socket.serve(&mut lifecycle, Counters::default) {
                    if let ClientEvent::Command(_) = event {
                        socket.server.respond(client, &Response::error(409, "not now"));
                    }
                }
                thread::yield_now();
            }
            lifecycle.end(&End::killed("power was cut"), Counters::default());
            socket.finish(lifecycle.status());
        });
        Self { entry, ended, thread: Some(thread) }
    }

    fn connect(&self) -> Client {
        Client::connect(self.entry.path()).unwrap()
    }

    fn end(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap();
    }
}

#[test]
fn one_connection_serves_many_requests_and_rejections() {
    let mut run = Run::start();
    let mut client = run.connect();
    for _ in 0..3 {
        let status: Status = client.request("GET", "/v1/status", &()).unwrap();
        assert_eq!(status.id, "web");
        let rejected = client.request::<Status>("POST", "/v1/pause", &()).unwrap_err();
        assert!(
            matches!(&rejected, ClientError::Rejected(409, _)) && rejected.to_string() == "not now",
            "{rejected:?}"
        );
    }
    run.end();
    assert!(matches!(client.request::<Status>("GET", "/v1/status", &()), Err(ClientError::Response(_))));
    assert!(matches!(Client::connect(run.entry.path()), Err(ClientError::Connect(_))));
}

#[test]
fn streams_and_wait_end_with_the_run() {
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
    let _: Status = probe.request("GET", "/v1/status", &()).unwrap();
    run.end();
    assert_eq!(follower.join().unwrap().unwrap(), [State::Starting, State::Exited]);
    assert_eq!(waiter.join().unwrap().unwrap().state, State::Exited);
}
