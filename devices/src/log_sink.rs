// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The destination of text that never makes its writer wait, e.g. the console log of the machine.
//! Shared by the serial port (vCPU threads) and the console device (its event loop).

/// A log. The caller of [`write`](LogSink::write) may be a vCPU thread.
pub trait LogSink: Send + Sync {
    /// Stores all of `text`, or drops what does not fit. Never blocks, never fails.
    fn write(&self, text: &[u8]);
}
