// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A broken invariant of PID 1: one line on the kernel's console, then a reset of the machine. In a
//! child, only the child ends.

// Reason for unsafe code: two symbols with fixed names.
#![allow(unsafe_code)]

use rustix::system::{RebootCommand, reboot};

pub(crate) fn reset() -> ! {
    loop {
        // It cannot fail for PID 1.
        let _ = reboot(RebootCommand::Restart);
    }
}

#[panic_handler]
fn panic(information: &core::panic::PanicInfo<'_>) -> ! {
    super::Line::new(format_args!("{information}")).to_console();
    end()
}

fn end() -> ! {
    if super::system_call::is_child() {
        super::system_call::exit(127)
    }
    reset()
}

/// Referenced by the precompiled `alloc`. With `panic = "abort"` nothing unwinds.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// Like `rust_eh_personality`.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    end()
}
