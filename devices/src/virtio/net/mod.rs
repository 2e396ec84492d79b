// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The network device over a tap, a packet socket or a stream socket of the host's. The worker runs
//! on the event loop of the interface. Virtio 1.3, 5.1.
//!
//! | queue | direction | carries |
//! |---|---|---|
//! | 0, 2, ... | to the driver | frames, each behind a header of 12 bytes, in one buffer or several |
//! | 1, 3, ... | from the driver | the same, in one buffer |
//! | last | from the driver | commands, each with a byte for its answer |
//!
//! There is a pair of queues for each queue of the backend: one, or several of a tap. A driver that
//! does not accept several has one pair and the control queue as number 2, and uses the first pair
//! until it commands more. The tap chooses the queue of a frame to the guest, by the flow that the
//! guest last sent on it (5.1.6.5.6). One worker serves all pairs: limits, filter and counters are
//! those of the interface, and the transport has one interrupt for all queues.
//!
//! What is checked of a frame is copied before, so that the host's kernel gets what was checked; of a long
//! frame from the guest it copies the rest out of guest memory. A frame that is too short, too long, or has a header that was not negotiated is dropped and counted.
//! While the guest offers no buffers the backend is not read, and the host's kernel drops what
//! exceeds its queue (a stream's peer waits). A backend that is gone takes the link down; the
//! device goes on without it.
//!
//! An internal host is a service of this process on the same link: frames to it do not reach the
//! backend.
//!
//! By commands the driver sets which frames it wants (modes, its address, tables of addresses and
//! VLANs), and which offloads are left to it. A frame that it does not want is not delivered and not
//! counted. The tables are bounded; what does not fit a table is not filtered. All of it ends with a
//! reset.
//!
//! Not supported: hashes and receive-side scaling, announcements, and a policy on addresses: the guest may send
//! from any address.

mod backend;
mod control;
mod device;
mod filter;
mod host_side;
mod internal_host;
mod link;
mod link_watch;
mod output_wait;
mod packet;
mod packet_socket;
mod pair;
mod saved;
mod sent;
mod stream;
mod tap;
mod tap_queues;
mod worker;

pub use backend::{Backend, MAX_QUEUE_PAIRS};
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
mod control_tests;
#[cfg(test)]
mod flood_tests;
#[cfg(test)]
mod internal_host_tests;
#[cfg(test)]
mod limit_tests;
#[cfg(test)]
mod multiqueue_tests;
#[cfg(test)]
mod offload_tests;
#[cfg(test)]
mod packet_socket_tests;
#[cfg(test)]
mod stream_tests;
#[cfg(test)]
#[path = "net_tests.rs"]
mod tests;
