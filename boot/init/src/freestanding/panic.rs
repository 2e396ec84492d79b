// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The end of a PID 1 with a broken invariant: one line on the kernel's console, and the machine is reset.

// Reason for unsafe code: two symbols with fixed names.
#![allow(unsafe_code)]

#[panic_handler]
fn panic(information: &core::panic::PanicInfo<'_>) -> ! {
    super::Line::new(format_args!("{information}")).to_console();
    crate::pid1::reset()
}

/// Named by the precompiled `alloc`, which could unwind; with `panic = "abort"` nothing ever does.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// As above.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    crate::pid1::reset()
}
