// SPDX-License-Identifier: Apache-2.0 OR MIT
//! PID 1 of the guest: asks the host what to run, sets up its environment, runs it, reports how it
//! ended, and resets the machine. A static program without a C library; one thread.
//!
//! [`pid1::run`] lists the steps. Under the name [`tini::NAME`] the same file is the small init of
//! `--init`.
#![no_std]
#![no_main]

extern crate alloc;

mod freestanding;
mod pid1;
mod tini;

use core::ffi::CStr;
use freestanding::system_call::exit;
use rustix::process::{Pid, getpid};

/// Called by the entry point with the arguments of the process.
fn main(arguments: &[&'static CStr]) -> ! {
    match arguments {
        [name, program, command @ ..] if *name == tini::NAME => tini::run(program, command),
        _ if getpid() == Pid::INIT => pid1::run(),
        // A process other than PID 1 executed this file under its own name.
        _ => exit(126),
    }
}
