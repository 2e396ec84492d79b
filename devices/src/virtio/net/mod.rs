// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The network device over a tap, a packet socket or a stream socket of the host's. The worker runs
//! on the event loop of the interface. Virtio 1.3, 5.1.
//!
//! | queue | direction | carries |
//! |---|---|---|
//! | 0 | to the driver | frames, each behind a header of 12 bytes, in one buffer or several |
//! | 1 | from the driver | the same, in one buffer |
//!
//! Frames are copied once each way: the host's kernel gets the bytes that were checked. A frame
//! that is too short, too long, or has a header that was not negotiated is dropped and counted.
//! While the guest offers no buffers the backend is not read, and the host's kernel drops what
//! exceeds its queue (a stream's peer waits). A backend that is gone takes the link down; the
//! device goes on without it.
//!
//! An internal host is a service of this process on the same link: frames to it do not reach the
//! backend.
//!
//! Not supported: several queues, the control queue (filters, announcements), and a policy on
//! addresses: the guest may send from any address.

mod backend;
mod device;
mod internal_host;
mod link;
mod link_watch;
mod output_wait;
mod packet;
mod packet_socket;
mod stream;
mod tap;
mod worker;

pub use backend::Backend;
pub use device::{KIND, Net, NetConfig};
pub use internal_host::InternalHost;
pub use link::NetHandle;
pub use packet_socket::PacketSocket;
pub use stream::{Connect, StreamSocket};
pub use tap::{Tap, TapError};
pub use worker::NetCounters;

#[cfg(test)]
mod bench;
#[cfg(test)]
mod flood_tests;
#[cfg(test)]
mod internal_host_tests;
#[cfg(test)]
mod limit_tests;
#[cfg(test)]
mod offload_tests;
#[cfg(test)]
mod packet_socket_tests;
#[cfg(test)]
mod stream_tests;
#[cfg(test)]
#[path = "net_tests.rs"]
mod tests;
