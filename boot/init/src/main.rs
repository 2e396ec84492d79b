// SPDX-License-Identifier: Apache-2.0 OR MIT
//! PID 1 of the guest: asks the host what to run, prepares its surroundings, runs it, says how it ended, and resets the
//! machine. A static program without a C library; one thread.
//!
//! The order of a life is [`pid1::live`]. The same file under the name [`between::NAME`] is the small init that
//! `--init` puts between PID 1 and the workload.
#![no_std]
#![no_main]

extern crate alloc;

mod between;
mod freestanding;
mod pid1;

use core::ffi::CStr;

/// Called by the entry point with the arguments of the process.
fn main(arguments: &[&'static CStr]) -> ! {
    match arguments {
        [name, program, command @ ..] if *name == between::NAME => between::run(program, command),
        _ => pid1::live(),
    }
}
