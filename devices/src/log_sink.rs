// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where the text of the guest's kernel goes: the console log of the machine. Shared by the serial port (vCPU threads)
//! and the console device's first port (its event loop).

/// Takes console text. The caller of [`write`](LogSink::write) may be a vCPU.
pub trait LogSink: Send + Sync {
    /// Takes all of `text` or drops what does not fit. Never blocks, never fails.
    fn write(&self, text: &[u8]);
}
