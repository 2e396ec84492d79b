// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The socket device: stream sockets of the guest (`AF_VSOCK`) become Unix sockets of the host, as
//! in Firecracker and Cloud Hypervisor. The worker runs on the event loop of the device. Virtio
//! 1.3, 5.10.
//!
//! | queue | direction | carries |
//! |---|---|---|
//! | 0 | to the driver | packets, each a header of 44 bytes and data |
//! | 1 | from the driver | the same |
//! | 2 | to the driver | events: none, because no machine moves to another host |
//!
//! A program of the host connects to the socket, writes `CONNECT PORT\n`, and is connected to the
//! guest's port once it reads `OK N\n`; otherwise the connection is closed. A connection of the
//! guest to port P of CID 2 goes to the socket `NAME_P` beside the first, or is reset.
//!
//! No side can make the other wait, or this one grow: each connection has a buffer for data of the
//! guest that the host does not accept yet, and the guest is granted no more than that; data of
//! the host waits in its own socket. A packet that the guest must not send ends its connection
//! with a reset; one with foreign addresses is dropped and counted.
//!
//! Not supported: sockets that keep message boundaries (`SOCK_SEQPACKET`), and other CIDs than the
//! host's and the guest's.

mod connection;
mod credit;
mod device;
mod greeting;
mod host;
mod packet;
mod table;
mod worker;

pub use device::{KIND, Vsock, VsockConfig, VsockCounters};
pub use host::HostSockets;

#[cfg(test)]
#[path = "vsock_tests.rs"]
mod tests;
