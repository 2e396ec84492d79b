// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Why coracle could not do it: an error and the end reason that goes with it, and the one line that a person reads.

use super::progress;
use crate::host::panics;
use crate::state::end::{End, EndReason, STATUS_FAILED};
use std::error::Error;
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};

/// An error with its end reason.
#[derive(Debug)]
pub(crate) struct Failure {
    reason: EndReason,
    error: Box<dyn Error + Send + Sync>,
}

impl Failure {
    pub(crate) fn new(reason: EndReason, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { reason, error: error.into() }
    }

    /// A thread of ours panicked.
    pub(crate) fn of_panic() -> Self {
        Self::new(EndReason::InternalError, panics::first().unwrap_or("internal error"))
    }

    /// The error and its causes, one line.
    pub(crate) fn line(&self) -> String {
        let mut line = self.error.to_string();
        let mut cause = self.error.source();
        while let Some(error) = cause {
            line.push_str(": ");
            line.push_str(&error.to_string());
            cause = error.source();
        }
        line
    }

    /// The end of a run that failed like this.
    pub(crate) fn end(&self) -> End {
        End::failed(self.reason, &self.line())
    }
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        failure.end()
    }
}

/// Gives errors their end reason.
pub(crate) trait FailsAs<T> {
    /// An error ends the run for this reason.
    fn fails_as(self, reason: EndReason) -> Result<T, Failure>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> FailsAs<T> for Result<T, E> {
    fn fails_as(self, reason: EndReason) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(reason, error))
    }
}

/// Bytes that may still be said.
static ROOM: AtomicUsize = AtomicUsize::new(usize::MAX);

/// From now on no more than `bytes` are said: they go to a file.
pub(crate) fn say_at_most(bytes: usize) {
    ROOM.store(bytes, Ordering::SeqCst);
}

/// Tells the person, in one line whatever `text` holds: names in it may come from anywhere.
pub(crate) fn say(text: &str) {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let line = format!("coracle: {line}\n");
    let fits = |room: usize| room.checked_sub(line.len());
    progress::clear();
    if ROOM.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fits).is_ok() {
        // Whoever closed stderr does not want to read it.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}

/// Tells the person why something could not be done; returns the exit status for that.
pub(crate) fn fail(failure: &Failure) -> u8 {
    say(&failure.line());
    STATUS_FAILED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open {0}")]
    struct Outer(&'static str, #[source] std::io::Error);

    #[test]
    fn the_line_is_the_whole_chain() {
        let cause = std::io::Error::from(std::io::ErrorKind::NotFound);
        let failure = Err::<(), _>(Outer("x.img", cause)).fails_as(EndReason::ConfigError).unwrap_err();
        assert_eq!(failure.line(), "cannot open x.img: entity not found");
        assert_eq!((failure.end().reason, failure.end().status), (EndReason::ConfigError, 125));
    }
}
