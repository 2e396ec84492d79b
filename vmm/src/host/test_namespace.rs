// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A network namespace for one test, which ends with the test's thread.
#![allow(unsafe_code, reason = "unshare has no safe wrapper")]

use std::process::Command;

/// Moves this thread to a network namespace of its own. Returns `false`, and prints why, where that is not permitted.
#[must_use]
pub(crate) fn enter() -> bool {
    // SAFETY: it changes the network namespace of the calling thread, and nothing that Rust relies upon.
    let entered = unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0;
    if !entered {
        eprintln!("skipped: network namespaces are not permitted here");
    }
    entered
}

/// Runs `ip` with these arguments; returns its output.
pub(crate) fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
