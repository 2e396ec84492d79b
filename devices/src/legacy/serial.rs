// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The first serial port (a 16550A, `ttyS0`), for early messages and panics; output only. The
//! registers are vm-superio's. Bytes are collected to lines here, because each byte is an exit of a
//! vCPU. Called by vCPU threads, one at a time.

use crate::bus::{Action, BusDevice};
use crate::log_sink::LogSink;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vm_superio::serial::NoEvents;
use vm_superio::serial::SerialState as UartState;
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

/// Writable bits of the interrupt-enable register.
const INTERRUPT_ENABLE_MASK: u8 = 0x0f;
/// Line status: data is available.
const LINE_STATUS_DATA: u8 = 0x01;
/// Line status: the transmitter is empty, which it always is (two bits).
const LINE_STATUS_EMPTY: u8 = 0x60;
/// Bytes that the port holds for the driver: those of the loopback mode.
const MAX_INPUT_BYTES: usize = 64;

/// The state of a serial port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SerialState {
    divisor: [u8; 2],
    interrupt_enable: u8,
    interrupt_identification: u8,
    line_control: u8,
    line_status: u8,
    modem_control: u8,
    modem_status: u8,
    scratch: u8,
    input: Vec<u8>,
    /// The line that has not been written to the sink yet.
    unfinished: Vec<u8>,
}

/// A state that no serial port can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("serial port: {0} is impossible")]
pub struct InvalidSerialState(&'static str);

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

    /// Saves the state. No vCPU runs.
    #[must_use]
    pub fn save(&self) -> SerialState {
        let uart = self.lock();
        let state = uart.state();
        SerialState {
            divisor: [state.baud_divisor_low, state.baud_divisor_high],
            interrupt_enable: state.interrupt_enable,
            interrupt_identification: state.interrupt_identification,
            line_control: state.line_control,
            line_status: state.line_status,
            modem_control: state.modem_control,
            modem_status: state.modem_status,
            scratch: state.scratch,
            input: state.in_buffer,
            unfinished: uart.writer().bytes.clone(),
        }
    }

    /// A port with the state of another, that writes to `sink` and interrupts through `line`. An
    /// interrupt that is pending is raised again.
    ///
    /// # Errors
    /// The state is impossible.
    pub fn restored(state: &SerialState, sink: Arc<dyn LogSink>, line: EventFd) -> Result<Self, InvalidSerialState> {
        state.check()?;
        let registers = UartState {
            baud_divisor_low: state.divisor[0],
            baud_divisor_high: state.divisor[1],
            interrupt_enable: state.interrupt_enable,
            interrupt_identification: state.interrupt_identification,
            line_control: state.line_control,
            line_status: state.line_status,
            modem_control: state.modem_control,
            modem_status: state.modem_status,
            scratch: state.scratch,
            in_buffer: state.input.clone(),
        };
        let mut bytes = Vec::with_capacity(LINE_BUF_SIZE);
        bytes.extend_from_slice(&state.unfinished);
        let uart = Uart::from_state(&registers, Line(line), NoEvents, LineBuffer { sink, bytes });
        Ok(Self { uart: Mutex::new(uart.map_err(|_| InvalidSerialState("the input"))?) })
    }

    fn lock(&self) -> MutexGuard<'_, Uart<Line, NoEvents, LineBuffer>> {
        // A panic on a vCPU thread ends the machine in any case.
        self.uart.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SerialState {
    /// The other registers hold whatever the driver wrote.
    fn check(&self) -> Result<(), InvalidSerialState> {
        let has_input = self.line_status & LINE_STATUS_DATA != 0;
        let unfinished = &self.unfinished;
        let rules = [
            ("the interrupt-enable register", self.interrupt_enable & !INTERRUPT_ENABLE_MASK == 0),
            ("the line status", self.line_status & !LINE_STATUS_DATA == LINE_STATUS_EMPTY),
            ("the input", self.input.len() <= MAX_INPUT_BYTES && has_input != self.input.is_empty()),
            ("the unfinished line", unfinished.len() < LINE_BUF_SIZE && !unfinished.contains(&b'\n')),
        ];
        rules.into_iter().find(|(_, holds)| !holds).map_or(Ok(()), |(part, _)| Err(InvalidSerialState(part)))
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
    fn restored_serial_continues_its_line_its_registers_and_its_interrupt() {
        let (serial, lines) = serial();
        // Loopback with an interrupt for input, and a byte that goes through it.
        for (register, value) in [(1, 1), (7, 0x5a), (0, b'o'), (0, b'n'), (4, 0x18), (0, b'!')] {
            assert_eq!(serial.write(register, &[value]), Action::None);
        }
        let text = serde_json::to_string(&serial.save()).unwrap();
        let line = EventFd::new(libc::EFD_NONBLOCK).unwrap();
        let copied = Arc::new(Lines::default());
        let copy = Serial::restored(&serde_json::from_str(&text).unwrap(), copied.clone(), line.try_clone().unwrap());
        let copy = copy.unwrap();
        assert_eq!(line.read().unwrap(), 1);
        let registers = [7, 5, 0, 5].map(|register| {
            let mut value = [0];
            copy.read(register, &mut value);
            value[0]
        });
        assert_eq!(registers, [0x5a, 0x61, b'!', 0x60]);
        for (register, value) in [(4, 8), (0, b'e'), (0, b'\n')] {
            assert_eq!(copy.write(register, &[value]), Action::None);
        }
        assert_eq!(*copied.0.lock().unwrap(), ["one\n"]);
        assert!(lines.0.lock().unwrap().is_empty());
    }

    #[test]
    fn serial_rejects_impossible_states() {
        let (serial, _) = serial();
        let good = serial.save();
        type Change = fn(&mut SerialState);
        let cases: [(Change, &str); 8] = [
            (|state| state.interrupt_enable = 0x10, "the interrupt-enable register"),
            (|state| state.line_status = 0, "the line status"),
            (|state| state.line_status |= 0x80, "the line status"),
            (|state| state.line_status |= 1, "the input"),
            (|state| state.input = vec![0], "the input"),
            (|state| (state.line_status, state.input) = (0x61, vec![0; 65]), "the input"),
            (|state| state.unfinished = vec![b'x'; LINE_BUF_SIZE], "the unfinished line"),
            (|state| state.unfinished = b"a\nb".to_vec(), "the unfinished line"),
        ];
        for (change, part) in cases {
            let mut state = good.clone();
            change(&mut state);
            let sink = Arc::new(Lines::default());
            let error = Serial::restored(&state, sink, EventFd::new(libc::EFD_NONBLOCK).unwrap()).unwrap_err();
            assert_eq!(error, InvalidSerialState(part));
        }
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
