// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the compiler expects of a freestanding program: memory functions, which are those of the guest's init, and the end of a panic.
// Reason for unsafe code: symbols with fixed names.
#![cfg(panic = "abort")]
#![allow(unsafe_code)]

use crate::serial::{end, print};

#[path = "../../../../boot/init/src/freestanding/memory.rs"]
mod memory;

const PANICKED: u8 = 2;

#[panic_handler]
fn panic(information: &core::panic::PanicInfo<'_>) -> ! {
    print(format_args!("{information}"));
    end(PANICKED)
}

/// Referenced by the precompiled `core`. With `panic = "abort"` nothing unwinds.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
