// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The kinds of threads, which differ in what they need.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Thread {
    Main,
    Vcpu,
    /// The event loop of the console and the random numbers.
    Io,
    /// The event loop of an interface that is a tap.
    Tap,
    /// The event loop of an interface that is a packet socket.
    PacketSocket,
    /// The event loop of an interface that is a connection which was made before, or of one that has no other end.
    Stream,
    /// The event loop of an interface that is a socket of the host, to which it connects again.
    NetSocket,
    Vsock,
    /// The event loop of a virtio-fs device.
    Share,
    /// The event loop of one whose share the guest cannot change.
    ReadOnlyShare,
    Disk,
    /// Computes the kernel's digest.
    Digest,
    /// The name server of a machine on a bridge, and the threads of its connections.
    Names,
    /// The relay of published TCP ports, and the threads of its connections.
    Ports,
    /// The relay of published UDP ports.
    Datagrams,
}

impl Thread {
    #[cfg(test)]
    pub(super) const ALL: [Self; 15] = [
        Self::Main,
        Self::Vcpu,
        Self::Io,
        Self::Tap,
        Self::PacketSocket,
        Self::Stream,
        Self::NetSocket,
        Self::Vsock,
        Self::Share,
        Self::ReadOnlyShare,
        Self::Disk,
        Self::Digest,
        Self::Names,
        Self::Ports,
        Self::Datagrams,
    ];

    /// The kind of the event loop `name`; an unknown one has the rights of all that have the fewest.
    pub(super) fn of_event_loop(name: &str) -> Self {
        match name.split('-').next() {
            Some("io") => Self::Io,
            Some("net") => Self::Stream,
            Some("vsock") => Self::Vsock,
            Some("fs") => Self::Share,
            _ => Self::Disk,
        }
    }
}
