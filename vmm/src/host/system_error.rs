// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An error of the operating system with the action that failed: `Operation not permitted` alone does not say what to mend. And
//! an error with its causes, as one line.

use rustix::io::Errno;
use std::borrow::Cow;
use std::error::Error;
use std::io;

/// `cannot ACTION`, with the system's error as its source.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}")]
pub(crate) struct SystemError {
    action: Cow<'static, str>,
    source: io::Error,
}

/// Adds the action to an error of the operating system.
pub(crate) trait Cannot<T> {
    /// The error becomes `cannot ACTION`. The action names its object.
    fn cannot(self, action: impl Into<Cow<'static, str>>) -> Result<T, SystemError>;
}

impl<T> Cannot<T> for io::Result<T> {
    fn cannot(self, action: impl Into<Cow<'static, str>>) -> Result<T, SystemError> {
        self.map_err(|source| SystemError { action: action.into(), source })
    }
}

impl<T> Cannot<T> for Result<T, Errno> {
    fn cannot(self, action: impl Into<Cow<'static, str>>) -> Result<T, SystemError> {
        self.map_err(io::Error::from).cannot(action)
    }
}

/// The error and its causes, in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", chain(cause)),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_action_comes_before_the_systems_error() {
        let error = Err::<(), _>(Errno::PERM).cannot("start a thread").unwrap_err();
        assert_eq!(error.to_string(), "cannot start a thread");
        assert_eq!(error.source().unwrap().to_string(), "Operation not permitted (os error 1)");
        assert_eq!(chain(&error), "cannot start a thread: Operation not permitted (os error 1)");
    }
}
