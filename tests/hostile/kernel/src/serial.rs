// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What user mode asks of the kernel: lines on the serial port, and the end of the machine.
// Reason for unsafe code: calls of the kernel.
#![allow(unsafe_code)]

use crate::entry::CALL;
use core::arch::asm;
use core::fmt::{Arguments, Write};

const LINE_SIZE: usize = 256;

/// What does not fit is left out.
struct Line {
    bytes: [u8; LINE_SIZE],
    length: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let fits = text.len().min(LINE_SIZE - 1 - self.length);
        self.bytes[self.length..self.length + fits].copy_from_slice(&text.as_bytes()[..fits]);
        self.length += fits;
        Ok(())
    }
}

/// Prints a line. The console device writes to the same log, so that the line begins with a line feed.
pub(crate) fn print(text: Arguments<'_>) {
    let mut line = Line { bytes: [0; LINE_SIZE], length: 0 };
    let _ = write!(line, "\nhostile: {text}");
    line.bytes[line.length] = b'\n';
    // SAFETY: the kernel reads the bytes of the line, and changes no other registers.
    unsafe {
        asm!("ud2", in("rax") 0, in("r11") CALL, inout("rcx") line.length + 1 => _, inout("rsi") line.bytes.as_ptr() => _,
            lateout("rdx") _, options(nostack));
    }
}

/// Ends the machine with `status`.
pub(crate) fn end(status: u8) -> ! {
    // SAFETY: the kernel does not return.
    unsafe { asm!("ud2", in("rax") 1, in("r11") CALL, in("rdi") u64::from(status), options(noreturn, nostack)) }
}
