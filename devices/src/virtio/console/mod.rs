// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The console device with several ports: the kernel's console, and named byte streams between host
//! and guest. The worker runs on the `io` event loop. Virtio 1.3, 5.3.
//!
//! | queue | direction | carries |
//! |---|---|---|
//! | 0, 1 | to, from the driver | bytes of port 0 |
//! | 2, 3 | to, from the driver | control messages: which ports there are, their names, whether they are open |
//! | 2n+2, 2n+3 | to, from the driver | bytes of port n, from 1 on |
//!
//! No side blocks the other: a port whose output is full keeps its buffers in the queue, so that
//! the guest's writer waits as at a pipe. Input is read only into buffers of a port that the guest
//! has opened. The [`PortMonitor`] of a port has what went through it and whether its input has
//! ended.
//!
//! Not supported: the size of a console and the emergency write in the configuration space
//! (terminal sizes are sent over the control port), and adding and removing ports while the guest
//! runs.

mod control;
mod device;
mod host_stream;
mod port;
mod saved;
mod transfer;
mod worker;

pub use device::{Console, KIND};
pub use port::{PortConfig, PortInput, PortMonitor, PortOutput};

#[cfg(test)]
#[path = "console_tests.rs"]
mod tests;
