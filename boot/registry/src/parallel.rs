// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The same work on several blobs at a time, and repetition of requests that may succeed later.

use crate::client::ClientError;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Blobs at the same time, as docker does it.
pub(crate) const MAX_AT_ONCE: usize = 3;
/// Of one blob, each of which brings a part of it.
const MAX_ATTEMPTS: u32 = 64;
/// Attempts in a row that bring nothing.
const MAX_FUTILE_ATTEMPTS: u32 = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(300);

/// Calls `work` for each of `items`, on a few threads named `name`. The first failure ends it: `stop` is
/// set, so that the others can end early.
pub(crate) fn for_each<T: Sync, E: Send + From<StartError>>(
    items: &[T],
    name: &str,
    stop: &AtomicBool,
    work: impl Fn(&T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let next = AtomicUsize::new(0);
    let failure = Mutex::new(None);
    let turns = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            if let Err(error) = work(item) {
                stop.store(true, Ordering::Relaxed);
                failure.lock().expect("no thread panics with it").get_or_insert(error);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..items.len().min(MAX_AT_ONCE) {
            std::thread::Builder::new().name(name.into()).spawn_scoped(scope, turns).map_err(StartError)?;
        }
        turns();
        Ok::<(), E>(())
    })?;
    failure.into_inner().expect("no thread panics with it").map_or(Ok(()), Err)
}

#[derive(Debug, thiserror::Error)]
#[error("cannot start a thread")]
pub(crate) struct StartError(#[source] io::Error);

/// Attempts at the same thing, with longer and longer pauses after those that bring nothing.
pub(crate) struct Attempts {
    made: u32,
    futile: u32,
    pause: Duration,
}

impl Attempts {
    pub(crate) fn new() -> Self {
        Self { made: 0, futile: 0, pause: FIRST_PAUSE }
    }

    /// How many attempts have failed so far.
    pub(crate) fn made(&self) -> u32 {
        self.made
    }

    /// Called after one that failed, which `progressed` or brought nothing. Returns whether there is another one, after a pause.
    pub(crate) fn again(&mut self, progressed: bool) -> bool {
        self.made += 1;
        self.futile = if progressed { 0 } else { self.futile + 1 };
        if self.made == MAX_ATTEMPTS || self.futile == MAX_FUTILE_ATTEMPTS {
            return false;
        }
        if !progressed {
            std::thread::sleep(self.pause);
            self.pause *= 2;
        }
        true
    }
}

/// Repeats a request whose failure may be temporary.
pub(crate) fn with_retries<T>(request: impl Fn() -> Result<T, ClientError>) -> Result<T, ClientError> {
    let mut attempts = Attempts::new();
    loop {
        match request() {
            Err(error) if error.is_temporary() && attempts.again(false) => log::debug!("{error}; trying again"),
            other => return other,
        }
    }
}
