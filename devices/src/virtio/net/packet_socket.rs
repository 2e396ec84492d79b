// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A packet socket bound to an interface of the host, with virtio's header: what the network sends
//! to the interface goes to the guest, and what the guest sends goes out of it. Made on `main`, used
//! on the event loop of the interface. packet(7); Linux, `net/packet/af_packet.c`.
#![allow(unsafe_code, reason = "no safe wrapper offers the options and control messages of a packet socket")]

use super::super::guest_io::{Channel, write_packet};
use super::link_watch::{LinkState, LinkWatch};
use super::output_wait::OutputWait;
use super::packet::{HEADER_SIZE, MAX_FRAME_BYTES, guest_offloads, host_offloads, insert_vlan_tag};
use super::sent::SentPacket;
use crate::event_loop::Source;
use libc::c_int;
use rustix::net::sockopt::socket_error;
use std::io::{Error, ErrorKind, Result};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

/// Options, and flags and type of the control message. Linux, `include/uapi/linux/if_packet.h`.
const PACKET_AUXDATA: c_int = 8;
const PACKET_VNET_HDR: c_int = 15;
const PACKET_IGNORE_OUTGOING: c_int = 23;
/// The interface has a carrier. Linux, `include/uapi/linux/if.h`.
const IFF_LOWER_UP: c_int = 1 << 16;
const TP_STATUS_VLAN_VALID: u32 = 1 << 4;
const TP_STATUS_VLAN_TPID_VALID: u32 = 1 << 6;

/// The kernel's header ends before the number of buffers.
const KERNEL_HEADER_SIZE: usize = HEADER_SIZE - 2;
const VLAN_TAG_SIZE: usize = 4;
/// Where frames are received: space for the header, and for a tag.
const FRAME: usize = HEADER_SIZE + VLAN_TAG_SIZE;
/// Bytes in flight: the kernel charges more than the frame's length.
const BUFFER_BYTES: c_int = 4 << 20;

/// `struct tpacket_auxdata`.
#[derive(Clone, Copy)]
#[repr(C)]
struct AuxiliaryData {
    status: u32,
    _lengths: [u32; 2],
    _places: [u16; 2],
    vlan_tag: u16,
    vlan_type: u16,
}

/// A packet socket as a backend.
#[derive(Debug)]
pub struct PacketSocket {
    socket: OwnedFd,
    output_wait: OutputWait,
    watch: LinkWatch,
    /// The host's kernel can segment UDP.
    has_udp_segments: bool,
    packet: Box<[u8]>,
    /// Where the received packet is in it.
    received: std::ops::Range<usize>,
}

impl PacketSocket {
    /// Takes over a packet socket (`AF_PACKET`, `SOCK_RAW`) that is bound to an interface of this
    /// network namespace, for all protocols (`ETH_P_ALL`). The interface must be promiscuous, or
    /// have the address of the guest. The socket's file status flags are not changed.
    ///
    /// # Errors
    /// It is not such a socket, or the host has no descriptor left.
    pub fn new(socket: OwnedFd) -> Result<Self> {
        let set = |level, name, value: c_int| {
            let (pointer, size) = ((&raw const value).cast(), size_of::<c_int>() as libc::socklen_t);
            // SAFETY: the options are read as an int from the pointer.
            let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, pointer, size) };
            if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
        };
        set(libc::SOL_PACKET, PACKET_VNET_HDR, 1)?;
        set(libc::SOL_PACKET, PACKET_AUXDATA, 1)?;
        set(libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)?;
        for name in [libc::SO_SNDBUFFORCE, libc::SO_RCVBUFFORCE] {
            // Needs CAP_NET_ADMIN; without it the default is smaller, and works.
            let _ = set(libc::SOL_SOCKET, name, BUFFER_BYTES);
        }
        // One byte more, by which a frame that is too long shows.
        let packet = vec![0; FRAME + MAX_FRAME_BYTES + 1].into_boxed_slice();
        let watch = LinkWatch::open(bound_index(&socket)?, (libc::IFF_UP | IFF_LOWER_UP) as u32)?;
        let (output_wait, has_udp_segments) = (OutputWait::new()?, has_udp_segments());
        Ok(Self { socket, output_wait, watch, has_udp_segments, packet, received: 0..0 })
    }

    /// See [`Backend::sources`](super::backend::Backend::sources).
    pub(super) fn sources(&self, token: u32) -> Vec<Source> {
        vec![Source::readable(self, token), self.output_wait.source(token), self.watch.source(token)]
    }

    /// See [`Backend::changed`](super::backend::Backend::changed).
    pub(super) fn changed(&mut self) {
        self.output_wait.update();
        self.watch.update();
        // An interface that was set down leaves an error, which would be that of the next frame.
        let _ = socket_error(&self.socket);
    }

    pub(super) fn link_state(&self) -> LinkState {
        self.watch.state()
    }

    /// See [`Backend::features`](super::backend::Backend::features). The kernel does not ask what
    /// this side can take, so the driver cannot switch it off.
    pub(super) fn features(&self) -> u64 {
        guest_offloads(self.has_udp_segments) | host_offloads(self.has_udp_segments)
    }

    /// See [`Backend::receive`](super::backend::Backend::receive).
    pub(super) fn receive(&mut self) -> Result<&mut [u8]> {
        if self.received.is_empty() {
            self.received = self.receive_new()?;
        }
        Ok(&mut self.packet[self.received.clone()])
    }

    pub(super) fn consume(&mut self) {
        self.received = 0..0;
    }

    fn receive_new(&mut self) -> Result<std::ops::Range<usize>> {
        let mut header = [0_u8; KERNEL_HEADER_SIZE];
        let (length, tag) = loop {
            match self.receive_parts(&mut header) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                received => break received?,
            }
        };
        let Some(length) = length.checked_sub(KERNEL_HEADER_SIZE) else {
            // The kernel writes a header before each frame.
            return Err(ErrorKind::InvalidData.into());
        };
        let start = FRAME - HEADER_SIZE;
        self.packet[start..start + KERNEL_HEADER_SIZE].copy_from_slice(&header);
        self.packet[start + KERNEL_HEADER_SIZE..FRAME].fill(0);
        let Some(tag) = tag else { return Ok(start..FRAME + length) };
        insert_vlan_tag(&mut self.packet[..FRAME + length], tag);
        Ok(0..FRAME + length)
    }

    /// One frame, cut to the length of the buffer, and the VLAN tag that the kernel took out of it.
    fn receive_parts(&mut self, header: &mut [u8; KERNEL_HEADER_SIZE]) -> Result<(usize, Option<[u8; VLAN_TAG_SIZE]>)> {
        let frame = &mut self.packet[FRAME..];
        let mut parts = [
            libc::iovec { iov_base: header.as_mut_ptr().cast(), iov_len: header.len() },
            libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: frame.len() },
        ];
        // Of u64, so that it is aligned for a cmsghdr.
        let mut control = [0_u64; 16];
        // SAFETY: msghdr is plain data, for which all zeroes is "no address, no control data, no
        // flags".
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        (message.msg_iov, message.msg_iovlen) = (parts.as_mut_ptr(), parts.len());
        (message.msg_control, message.msg_controllen) = (control.as_mut_ptr().cast(), size_of_val(&control));
        // SAFETY: the message refers to two buffers and space for control data, which are borrowed
        // here.
        let length = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &mut message, libc::MSG_DONTWAIT) };
        let length = usize::try_from(length).map_err(|_| Error::last_os_error())?;
        // SAFETY: the kernel filled in the control data and its length.
        let first = unsafe { libc::CMSG_FIRSTHDR(&message) };
        // SAFETY: it is null or a whole control message in the buffer.
        let Some(control) = (unsafe { first.as_ref() }) else { return Ok((length, None)) };
        if (control.cmsg_level, control.cmsg_type) != (libc::SOL_PACKET, PACKET_AUXDATA) {
            return Ok((length, None));
        }
        // SAFETY: this is the data of a control message that holds this structure, which is plain
        // data; it need not be aligned.
        let data = unsafe { libc::CMSG_DATA(first).cast::<AuxiliaryData>().read_unaligned() };
        if data.status & TP_STATUS_VLAN_VALID == 0 {
            return Ok((length, None));
        }
        let has_type = data.status & TP_STATUS_VLAN_TPID_VALID != 0;
        let kind = if has_type { data.vlan_type } else { libc::ETH_P_8021Q as u16 };
        let ([a, b], [c, d]) = (kind.to_be_bytes(), data.vlan_tag.to_be_bytes());
        Ok((length, Some([a, b, c, d])))
    }

    /// See [`Backend::send`](super::backend::Backend::send).
    pub(super) fn send(&mut self, packet: &SentPacket<'_>) -> Result<()> {
        let (header, frame) = packet.header_and_frame();
        let parts = [&header[..KERNEL_HEADER_SIZE], frame];
        let result = write_packet(self.socket.as_fd(), Channel::Socket, &parts, &packet.rest);
        if result.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
            self.output_wait.wait_for(&self.socket);
        }
        result
    }
}

impl AsRawFd for PacketSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Number of the interface that a packet socket is bound to.
fn bound_index(socket: &OwnedFd) -> Result<u32> {
    // SAFETY: sockaddr_ll is plain data, for which all zeroes is valid.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    let mut size = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the kernel writes no more than `size` bytes to the address.
    let result = unsafe { libc::getsockname(socket.as_raw_fd(), (&raw mut address).cast(), &mut size) };
    match u32::try_from(address.sll_ifindex) {
        _ if result < 0 => Err(Error::last_os_error()),
        Ok(index) if index > 0 => Ok(index),
        _ => Err(Error::new(ErrorKind::InvalidInput, "the packet socket is not bound to an interface")),
    }
}

/// Whether virtio's header of the kernel knows segments of UDP: since Linux 6.2.
fn has_udp_segments() -> bool {
    let name = rustix::system::uname();
    let mut numbers = name.release().to_str().unwrap_or_default().split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let version: (u32, u32) = match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => (0, 0),
    };
    version >= (6, 2)
}
