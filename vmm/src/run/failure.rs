// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An error with its end reason, and the one line on stderr for it.

use super::progress;
use crate::host::panics;
use crate::host::system_error::chain;
use crate::state::end::{End, EndReason, STATUS_FAILED};
use std::error::Error;
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};

#[derive(Debug)]
pub(crate) struct Failure {
    reason: EndReason,
    error: Box<dyn Error + Send + Sync>,
}

impl Failure {
    pub(crate) fn new(reason: EndReason, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { reason, error: error.into() }
    }

    pub(crate) fn reason(&self) -> EndReason {
        self.reason
    }

    /// The first panic of any thread of this process.
    pub(crate) fn from_panic() -> Self {
        Self::new(EndReason::InternalError, panics::first().unwrap_or("internal error"))
    }

    /// The error and its causes, in one line.
    pub(crate) fn message(&self) -> String {
        chain(self.error.as_ref())
    }
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self::failed(failure.reason, &failure.message())
    }
}

/// Gives an error its end reason.
pub(crate) trait FailsAs<T> {
    fn fails_as(self, reason: EndReason) -> Result<T, Failure>;
}

impl<T, E: Into<Box<dyn Error + Send + Sync>>> FailsAs<T> for Result<T, E> {
    fn fails_as(self, reason: EndReason) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(reason, error))
    }
}

/// Bytes that may still be printed.
static OUTPUT_LEFT: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Drops everything after the next `bytes` bytes: stderr becomes a file.
pub(crate) fn limit_output(bytes: usize) {
    OUTPUT_LEFT.store(bytes, Ordering::SeqCst);
}

/// Prints one line to stderr. Control characters in `text`, which may come from a file name or the guest, become blanks.
pub(crate) fn print_error(text: &str) {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let line = format!("coracle: {line}\n");
    let take = |left: usize| left.checked_sub(line.len());
    progress::clear();
    if OUTPUT_LEFT.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok() {
        // A closed stderr is not an error.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}

/// Prints the failure; returns the exit status.
pub(crate) fn fail(failure: &Failure) -> u8 {
    print_error(&failure.message());
    STATUS_FAILED
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open {0}")]
    struct Outer(&'static str, #[source] std::io::Error);

    #[test]
    fn message_is_the_chain_of_errors() {
        let cause = std::io::Error::from(std::io::ErrorKind::NotFound);
        let failure = Err::<(), _>(Outer("x.img", cause)).fails_as(EndReason::ConfigError).unwrap_err();
        assert_eq!(failure.message(), "cannot open x.img: entity not found");
        let end = End::from(failure);
        assert_eq!((end.reason, end.status), (EndReason::ConfigError, 125));
    }
}
