// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One output stream of a child, collected by its own thread, so that a test can wait for a text.

use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    ended: bool,
}

/// What has been read from a stream.
#[derive(Clone, Default)]
pub(crate) struct Capture {
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Capture {
    /// Reads `stream` to its end on a new thread. An error counts as the end: a pty returns one when its last user has closed
    /// it.
    pub(crate) fn start(mut stream: impl Read + Send + 'static) -> Capture {
        let capture = Capture::default();
        let shared = Arc::clone(&capture.shared);
        thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            loop {
                let count = stream.read(&mut buffer).unwrap_or(0);
                let mut state = shared.0.lock().expect("no holder of this lock panics");
                state.bytes.extend_from_slice(&buffer[..count]);
                state.ended = count == 0;
                shared.1.notify_all();
                if count == 0 {
                    return;
                }
            }
        });
        capture
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.lock().bytes.clone()
    }

    /// Waits for `text`; returns whether it came before the end of the stream and within `limit`.
    pub(crate) fn wait_for(&self, text: &[u8], limit: Duration) -> bool {
        let state = self.wait_until(limit, |state| contains(&state.bytes, text) || state.ended);
        contains(&state.bytes, text)
    }

    /// Waits for the end of the stream; returns whether it came within `limit`.
    pub(crate) fn wait_for_end(&self, limit: Duration) -> bool {
        self.wait_until(limit, |state| state.ended).ended
    }

    fn wait_until(&self, limit: Duration, done: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let deadline = Instant::now() + limit;
        let mut state = self.lock();
        while !done(&state) {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { break };
            state = self.shared.1.wait_timeout(state, left).expect("no holder of this lock panics").0;
        }
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().expect("no holder of this lock panics")
    }
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}
