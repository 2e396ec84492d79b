// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A packet socket of one interface: packet(7).
#![allow(unsafe_code, reason = "no safe wrapper offers the address of a packet socket")]

use std::io::{Error, Result};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

/// Every protocol, in the order of the wire.
const ALL_PROTOCOLS: u16 = (libc::ETH_P_ALL as u16).to_be();

/// Opens a socket that receives every frame that arrives at the interface. Needs `CAP_NET_RAW`.
///
/// # Errors
/// The process has no such capability, or the interface is gone.
pub(crate) fn open(index: u32) -> Result<OwnedFd> {
    // Protocol 0 receives nothing: no frame of another interface comes before it is bound.
    // SAFETY: the call takes numbers only.
    let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(Error::last_os_error());
    }
    // SAFETY: the descriptor is new, and this is its only owner.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: sockaddr_ll is plain data, for which all zeroes is valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = ALL_PROTOCOLS;
    address.sll_ifindex = index.cast_signed();
    let size = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the address has the given size.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) })?;
    // The host's stack leaves the multicast groups of an interface without addresses, and hardware filters by them.
    let request = libc::packet_mreq {
        mr_ifindex: index.cast_signed(),
        mr_type: libc::PACKET_MR_ALLMULTI as u16,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    let (pointer, size) = ((&raw const request).cast(), size_of_val(&request) as libc::socklen_t);
    // SAFETY: the option is read as a packet_mreq from the pointer.
    let joined =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, pointer, size) };
    check(joined)?;
    Ok(socket)
}

fn check(result: libc::c_int) -> Result<()> {
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}
