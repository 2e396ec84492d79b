// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The limit of open descriptors of this process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// More is not needed, and some kernels have no bound.
const MAX_DESCRIPTORS: u64 = 64 << 10;

/// Raises the limit as far as this process may; returns it.
pub(crate) fn raise() -> u64 {
    raise_to(MAX_DESCRIPTORS)
}

/// Raises the limit to `count` if it is lower, or as far as this process may; returns it.
pub(crate) fn raise_to(count: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current.unwrap_or(MAX_DESCRIPTORS);
    let wanted = limit.maximum.unwrap_or(count).min(count);
    if wanted <= current {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }) {
        Ok(()) => wanted,
        Err(_) => current,
    }
}
