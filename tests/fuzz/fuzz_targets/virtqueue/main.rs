// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Every virtio device, used through its registers and its rings by a guest that is made of the
//! fuzzer's bytes. The workers run here, on the fuzzer's thread; the event loop has stand-ins for
//! them.
//!
//! Must hold: nothing panics or hangs; a device with a broken ring does not touch its rings; a
//! reset leaves neither a worker nor a status. For a driver that follows the rules of the rings:
//! the device never needs a reset, each chain is returned once, with no more bytes written than are
//! writable, and if the device does not wait for the host, all of them are returned.
#![no_main]

mod guest;
mod input;
mod subject;

use guest::Guest;
use input::Input;
use libfuzzer_sys::fuzz_target;

/// Steps of one run; more found nothing else.
const MAX_STEPS: usize = 64;

// The fuzzer has its own main function, so that Rust's, which ignores SIGPIPE as the devices
// require, does not run.
fuzz_target!(init: {
    // SAFETY: no handler is installed, and no other thread runs yet.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}, |input: Input| {
    let mut guest = Guest::new(&input);
    input.steps.iter().take(MAX_STEPS).for_each(|step| guest.do_step(step));
    guest.end();
});
