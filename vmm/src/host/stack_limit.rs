// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The limit of the stack, which a caller may have set too low for the main thread. The kernel reads it whenever the stack
//! grows, so that a new limit counts at once.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Enough for the main thread with a wide margin.
const NEEDED: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stack may have {} KiB at most (`ulimit -Hs`); coracle needs {} KiB", .0 >> 10, NEEDED >> 10)]
pub(crate) struct StackTooSmall(u64);

/// Raises the limit if it is too low.
///
/// # Errors
/// The hard limit is too low, and this process may not raise it.
pub(crate) fn raise() -> Result<(), StackTooSmall> {
    let Rlimit { current, maximum } = getrlimit(Resource::Stack);
    if current.is_none_or(|current| current >= NEEDED) {
        return Ok(());
    }
    // Only root can raise the hard limit.
    let maximum = maximum.map(|maximum| maximum.max(NEEDED));
    setrlimit(Resource::Stack, Rlimit { current: Some(NEEDED), maximum })
        .map_err(|_| StackTooSmall(getrlimit(Resource::Stack).maximum.unwrap_or(NEEDED)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_names_both_sizes() {
        assert_eq!(raise(), Ok(()));
        let error = StackTooSmall(64 << 10).to_string();
        assert_eq!(error, "the stack may have 64 KiB at most (`ulimit -Hs`); coracle needs 1024 KiB");
    }
}
