// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Every virtio device, driven through its registers and its rings by a guest that is made of the fuzzer's bytes. The
//! workers run here, on the fuzzer's thread; the event loop holds their deputies.
//!
//! Must hold: nothing panics or hangs; a device with a broken ring touches its rings no more; a reset leaves neither a
//! worker nor a status. And towards a driver that keeps to the rules of the rings: the device never needs a reset, each
//! chain comes back once, with no more bytes written than it has room for, and if the device does not wait for the host,
//! all of them come back.
#![no_main]

mod guest;
mod input;
mod subject;

use guest::Guest;
use input::Input;
use libfuzzer_sys::fuzz_target;

/// Steps of one run; more find nothing that fewer do not.
const STEPS_LIMIT: usize = 64;

// The fuzzer brings its own main function: Rust's, which ignores SIGPIPE as the devices require, does not run.
fuzz_target!(init: {
    // SAFETY: no handler is installed, and no other thread runs yet.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}, |input: Input| {
    let mut guest = Guest::new(&input);
    input.steps.iter().take(STEPS_LIMIT).for_each(|step| guest.take(step));
    guest.end();
});
