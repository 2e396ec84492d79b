// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The header of each packet. Pure. Virtio 1.3, 5.10.6 (`struct virtio_vsock_hdr`).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub(super) const HEADER_SIZE: usize = size_of::<Header>();
/// CID of the host.
pub(super) const HOST_CID: u64 = 2;
/// The only type of socket here.
pub(super) const TYPE_STREAM: u16 = 1;

/// Flag of [`Op::Shutdown`]: the sender receives no more.
pub(super) const SHUTDOWN_RECEIVE: u32 = 1;
/// Flag of [`Op::Shutdown`]: the sender sends no more.
pub(super) const SHUTDOWN_SEND: u32 = 2;
pub(super) const SHUTDOWN_BOTH: u32 = SHUTDOWN_RECEIVE | SHUTDOWN_SEND;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Header {
    pub(super) source_cid: U64,
    pub(super) destination_cid: U64,
    pub(super) source_port: U32,
    pub(super) destination_port: U32,
    /// Bytes of data behind the header.
    pub(super) length: U32,
    pub(super) socket_type: U16,
    pub(super) operation: U16,
    pub(super) flags: U32,
    /// Buffer space of the sender for this connection.
    pub(super) buffer_size: U32,
    /// Bytes that have left this buffer since the start, modulo 2^32.
    pub(super) forwarded: U32,
}

const _: () = assert!(HEADER_SIZE == 44);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Op {
    Request = 1,
    Response = 2,
    Reset = 3,
    Shutdown = 4,
    Data = 5,
    CreditUpdate = 6,
    CreditRequest = 7,
}

impl Op {
    pub(super) fn from_number(number: u16) -> Option<Self> {
        use Op::{CreditRequest, CreditUpdate, Data, Request, Reset, Response, Shutdown};
        let all = [Request, Response, Reset, Shutdown, Data, CreditUpdate, CreditRequest];
        all.into_iter().find(|op| *op as u16 == number)
    }
}

/// What names a connection, as the two CIDs are fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ports {
    pub(super) host: u32,
    pub(super) guest: u32,
}

impl Ports {
    /// Of a packet of the guest.
    pub(super) fn of(header: &Header) -> Self {
        Self { host: header.destination_port.get(), guest: header.source_port.get() }
    }

    /// The header of a packet to the guest without data.
    pub(super) fn header(self, guest_cid: u64, op: Op) -> Header {
        Header {
            source_cid: HOST_CID.into(),
            destination_cid: guest_cid.into(),
            source_port: self.host.into(),
            destination_port: self.guest.into(),
            socket_type: TYPE_STREAM.into(),
            operation: (op as u16).into(),
            ..Header::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_has_the_layout_of_the_specification() {
        let ports = Ports { host: 0x0102_0304, guest: 0x0506_0708 };
        let header = Header { length: 9.into(), forwarded: 0xff.into(), ..ports.header(3, Op::CreditUpdate) };
        let bytes = [
            [2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0].as_slice(),
            &[4, 3, 2, 1, 8, 7, 6, 5, 9, 0, 0, 0, 1, 0, 6, 0],
            &[0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0, 0, 0],
        ];
        assert_eq!(header.as_bytes(), bytes.concat());
    }

    #[test]
    fn operations_have_the_numbers_1_to_7() {
        let known: Vec<u16> = (0..=u16::MAX).filter(|number| Op::from_number(*number).is_some()).collect();
        assert_eq!(known, (1..=7).collect::<Vec<_>>());
        assert_eq!(Op::from_number(5), Some(Op::Data));
    }
}
