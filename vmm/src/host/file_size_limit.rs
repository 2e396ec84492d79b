// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The limit of the size of files, which a caller may have set too low for status, events and disks.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Enough for every file that each machine has. Disks and logs need more; each names itself in its error.
const NEEDED: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a file may have {0} bytes at most (`ulimit -Hf`); coracle needs {NEEDED}")]
pub(crate) struct FileSizeTooSmall(u64);

/// Raises the limit to the hard one.
///
/// # Errors
/// The hard limit is too low.
pub(crate) fn raise() -> Result<(), FileSizeTooSmall> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Fsize);
    // It only fails for a limit above the hard one.
    let _ = setrlimit(Resource::Fsize, Rlimit { current: maximum, maximum });
    require(maximum)
}

fn require(maximum: Option<u64>) -> Result<(), FileSizeTooSmall> {
    match maximum {
        Some(maximum) if maximum < NEEDED => Err(FileSizeTooSmall(maximum)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_below_what_every_machine_needs_is_named() {
        assert_eq!(require(None), Ok(()));
        assert_eq!(require(Some(NEEDED)), Ok(()));
        let error = require(Some(512)).unwrap_err().to_string();
        assert_eq!(error, "a file may have 512 bytes at most (`ulimit -Hf`); coracle needs 1048576");
    }
}
