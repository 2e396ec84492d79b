// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The limit of open descriptors of this process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// More is not needed, and some kernels have no bound.
const MAX_DESCRIPTORS: u64 = 64 << 10;

/// Raises the limit as far as this process may; returns it.
pub(crate) fn raise() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current.unwrap_or(MAX_DESCRIPTORS);
    let wanted = limit.maximum.unwrap_or(MAX_DESCRIPTORS).min(MAX_DESCRIPTORS);
    if wanted <= current {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }) {
        Ok(()) => wanted,
        Err(_) => current,
    }
}
