// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The first serial port (a 16550A, `ttyS0`), for early messages and panics; output only. The
//! registers are vm-superio's. Bytes are collected to lines here, because each byte is an exit of a
//! vCPU. Called by vCPU threads, one at a time.

use crate::bus::{Action, BusDevice};
use crate::log_sink::LogSink;
use std::fmt;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vm_superio::serial::NoEvents;
use vm_superio::{Serial as Uart, Trigger};
use vmm_sys_util::eventfd::EventFd;

/// The first port on a PC.
pub const PORT: u64 = 0x3f8;
/// Number of ports.
pub const LENGTH: u64 = 8;
/// Its interrupt line on a PC.
pub const INTERRUPT_LINE: u32 = 4;

/// Bytes of an unfinished line that are collected.
const LINE_BUF_SIZE: usize = 256;

/// The serial port.
pub struct Serial {
    uart: Mutex<Uart<Line, NoEvents, LineBuffer>>,
}

impl Serial {
    /// A port that writes to `sink` and interrupts through `line` (an irqfd, non-blocking).
    #[must_use]
    pub fn new(sink: Arc<dyn LogSink>, line: EventFd) -> Self {
        Self { uart: Mutex::new(Uart::new(Line(line), LineBuffer { sink, bytes: Vec::with_capacity(LINE_BUF_SIZE) })) }
    }

    /// Writes an unfinished last line to the sink, once the machine has stopped.
    pub fn flush(&self) {
        self.lock().writer_mut().write_out();
    }

    fn lock(&self) -> MutexGuard<'_, Uart<Line, NoEvents, LineBuffer>> {
        // A panic on a vCPU thread ends the machine in any case.
        self.uart.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serial").finish_non_exhaustive()
    }
}

impl BusDevice for Serial {
    fn read(&self, offset: u64, data: &mut [u8]) {
        if let ([value], Ok(offset)) = (data, u8::try_from(offset)) {
            *value = self.lock().read(offset);
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Action {
        if let (&[value], Ok(offset)) = (data, u8::try_from(offset)) {
            // The sink and the line return no errors.
            let _ = self.lock().write(offset, value);
        }
        Action::None
    }
}

struct Line(EventFd);

impl Trigger for Line {
    type E = std::convert::Infallible;

    fn trigger(&self) -> Result<(), Self::E> {
        // The write fails only when the counter is at its limit; a pulse is pending then.
        let _ = self.0.write(1);
        Ok(())
    }
}

/// Collects bytes until a line is complete or the buffer full.
struct LineBuffer {
    sink: Arc<dyn LogSink>,
    bytes: Vec<u8>,
}

impl LineBuffer {
    fn write_out(&mut self) {
        if !self.bytes.is_empty() {
            self.sink.write(&self.bytes);
            self.bytes.clear();
        }
    }
}

impl Write for LineBuffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        for &byte in bytes {
            self.bytes.push(byte);
            if byte == b'\n' || self.bytes.len() == LINE_BUF_SIZE {
                self.write_out();
            }
        }
        Ok(bytes.len())
    }

    /// Does nothing: vm-superio calls this after each byte.
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for LineBuffer {
    fn drop(&mut self) {
        self.write_out();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Lines(Mutex<Vec<String>>);

    impl LogSink for Lines {
        fn write(&self, text: &[u8]) {
            self.0.lock().unwrap().push(String::from_utf8(text.to_vec()).unwrap());
        }
    }

    fn serial() -> (Serial, Arc<Lines>) {
        let lines = Arc::new(Lines::default());
        (Serial::new(lines.clone(), EventFd::new(libc::EFD_NONBLOCK).unwrap()), lines)
    }

    #[test]
    fn lines_reach_the_sink_whole_and_the_last_at_the_end() {
        let (serial, lines) = serial();
        for byte in b"one\ntwo" {
            assert_eq!(serial.write(0, &[*byte]), Action::None);
        }
        assert_eq!(*lines.0.lock().unwrap(), ["one\n"]);
        serial.flush();
        assert_eq!(*lines.0.lock().unwrap(), ["one\n", "two"]);
    }

    #[test]
    fn line_that_never_ends_is_cut() {
        let (serial, lines) = serial();
        (0..LINE_BUF_SIZE).for_each(|_| _ = serial.write(0, b"x"));
        assert_eq!(lines.0.lock().unwrap().len(), 1);
    }

    #[test]
    fn serial_ignores_wide_accesses_and_is_always_ready() {
        let (serial, lines) = serial();
        let mut wide = [0xff; 2];
        serial.read(0, &mut wide);
        _ = serial.write(0, b"ab");
        serial.flush();
        assert_eq!(wide, [0xff; 2]);
        assert!(lines.0.lock().unwrap().is_empty());
        let mut line_status = [0];
        serial.read(5, &mut line_status);
        assert_eq!(line_status[0] & 0x60, 0x60);
    }
}
