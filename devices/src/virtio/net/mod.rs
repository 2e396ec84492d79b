// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The network device over a tap of the host's. The worker runs on the `io` event loop. Virtio 1.3,
//! 5.1.
//!
//! | queue | direction | carries |
//! |---|---|---|
//! | 0 | to the driver | frames, each behind a header of 12 bytes |
//! | 1 | from the driver | the same |
//!
//! Frames are copied once each way: the host's kernel gets the bytes that were checked. A frame
//! that is too short, too long, or has a header that was not negotiated is dropped and counted.
//! While the guest offers no buffers the tap is not read, and the host's kernel drops what exceeds
//! its queue.
//!
//! Not supported: merged receive buffers and therefore segments larger than a frame *to* the guest,
//! several queues, the control queue (filters, announcements), and a policy on addresses: the guest
//! may send from any address.

mod device;
mod packet;
mod tap;
mod worker;

pub use device::{KIND, Net, NetConfig};
pub use tap::{Tap, TapError};
pub use worker::NetCounters;

#[cfg(test)]
#[path = "net_tests.rs"]
mod tests;
