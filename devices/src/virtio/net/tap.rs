// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A tap of the host: found by name or inherited, checked, and set to the header of virtio. Opened
//! on `main`, used on the event loop of the interface. Linux, `include/uapi/linux/if_tun.h`.
//!
//! A tap by name must exist unless it is to be created. The attachment ends with the descriptor.
#![allow(unsafe_code, reason = "no safe wrapper offers the ioctls of a tap")]

use super::super::guest_io::{Channel, write_packet};
use super::backend::MAX_QUEUE_PAIRS;
use super::link_watch::{LinkState, LinkWatch};
use super::packet::{HEADER_SIZE, MAX_FRAME_BYTES, host_offloads};
use super::sent::SentPacket;
use super::tap_queues;
use crate::event_loop::Source;
use libc::{c_int, c_uint};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketType, socket};
use std::fs::File;
use std::io::{Error, ErrorKind, Read, Result};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6,
};

/// A frame device, no extra packet information, and virtio's header.
const FLAGS: c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
/// Flags that are compared; the others make no difference.
const COMPARED_FLAGS: c_int = FLAGS | libc::IFF_TUN | libc::IFF_MULTI_QUEUE;
const MANY: c_int = FLAGS | libc::IFF_MULTI_QUEUE;

/// A tap cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// No interface has this name.
    #[error("tap {0} does not exist")]
    Missing(String),
    /// Empty, longer than 15 bytes, or with a slash or a zero byte.
    #[error("{0:?} cannot be the name of a tap")]
    Name(String),
    /// Another process is attached to it.
    #[error("tap {0} is busy")]
    Busy(String),
    /// It belongs to another user.
    #[error("no permission to use tap {0}")]
    Permission(String),
    /// A tun, another kind of interface, or an open tap with several queues.
    #[error("{0} is not a tap without packet information and with virtio headers, or is one queue of several")]
    Flags(String),
    /// The device file of all taps cannot be opened.
    #[error("cannot open /dev/net/tun")]
    Open(#[source] Error),
    /// Any other refusal of the host's kernel.
    #[error("cannot set up tap {name}")]
    Setup {
        /// Its name, or `fd N`.
        name: String,
        /// The error of the system call.
        source: Error,
    },
}

/// The offload of a tap for each feature of the device.
const OFFLOADS: [(u32, c_uint); 6] = [
    (VIRTIO_NET_F_GUEST_CSUM, libc::TUN_F_CSUM),
    (VIRTIO_NET_F_GUEST_TSO4, libc::TUN_F_TSO4),
    (VIRTIO_NET_F_GUEST_TSO6, libc::TUN_F_TSO6),
    (VIRTIO_NET_F_GUEST_ECN, libc::TUN_F_TSO_ECN),
    (VIRTIO_NET_F_GUEST_USO4, libc::TUN_F_USO4),
    (VIRTIO_NET_F_GUEST_USO6, libc::TUN_F_USO6),
];
const TCP_OFFLOADS: c_uint = libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
/// Offloads of UDP (Linux 6.2), which the kernel takes together only.
const UDP_OFFLOADS: c_uint = libc::TUN_F_USO4 | libc::TUN_F_USO6;

/// An attached tap.
#[derive(Debug)]
pub struct Tap {
    /// At least one.
    queues: Vec<TapQueue>,
    /// `None` if it is in another network namespace.
    watch: Option<LinkWatch>,
    /// What the host's kernel supports.
    offloads: c_uint,
}

#[derive(Debug)]
struct TapQueue {
    file: File,
    /// One packet, header and frame, and a byte by which a packet that is too long shows.
    packet: Box<[u8]>,
    /// Bytes of the received packet; 0 if there is none.
    received: usize,
}

impl Tap {
    /// Attaches to the existing tap `name`: to its one queue, or, if it was made for several, with
    /// `max_queues`.
    ///
    /// # Errors
    /// There is none, or it cannot be attached to.
    pub fn open(name: &str, max_queues: u16) -> std::result::Result<Self, TapError> {
        if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains(['/', '\0']) {
            return Err(TapError::Name(name.to_owned()));
        }
        // TUNSETIFF would create one, where that is permitted.
        let Ok(index) = index(name) else { return Err(TapError::Missing(name.to_owned())) };
        match Self::attach_to(name, FLAGS, 1) {
            Err(TapError::Flags(_)) => {}
            outcome => return outcome,
        }
        // The kernel lets several processes attach to such a tap, each of which would get a part of
        // the frames: there is none before, and none at the same time.
        let is_shared = |own: usize| tap_queues::attached(index).is_some_and(|attached| attached as usize > own);
        if is_shared(0) {
            return Err(TapError::Busy(name.to_owned()));
        }
        let tap = Self::attach_to(name, MANY, max_queues)?;
        if is_shared(tap.queues()) {
            return Err(TapError::Busy(name.to_owned()));
        }
        Ok(tap)
    }

    /// Makes the tap `name` with so many queues, which ends with its last descriptor.
    ///
    /// # Errors
    /// An interface has this name, or the process may not make one.
    pub fn create(name: &str, queues: u16) -> std::result::Result<Self, TapError> {
        if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains(['/', '\0']) {
            return Err(TapError::Name(name.to_owned()));
        }
        if index(name).is_ok() {
            return Err(TapError::Busy(name.to_owned()));
        }
        Self::attach_to(name, if queues > 1 { MANY } else { FLAGS }, queues)
    }

    fn attach_to(name: &str, flags: c_int, queues: u16) -> std::result::Result<Self, TapError> {
        let attach = |_| {
            let mut options = File::options();
            let file = options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun");
            let file = file.map_err(TapError::Open)?;
            attach(&file, name, flags).map_err(|source| match source.raw_os_error() {
                Some(libc::EBUSY) => TapError::Busy(name.to_owned()),
                Some(libc::EPERM | libc::EACCES) => TapError::Permission(name.to_owned()),
                Some(libc::EINVAL) => TapError::Flags(name.to_owned()),
                _ => TapError::Setup { name: name.to_owned(), source },
            })?;
            Ok(file)
        };
        let files = (0..queues.clamp(1, MAX_QUEUE_PAIRS)).map(attach).collect::<std::result::Result<_, TapError>>()?;
        let mut tap = Self::set_up(files, name.to_owned())?;
        tap.watch = watch(name);
        Ok(tap)
    }

    /// Takes over a tap that another process has attached to.
    ///
    /// # Errors
    /// It is not a tap, or not of the required kind.
    pub fn inherit(descriptor: OwnedFd) -> std::result::Result<Self, TapError> {
        let name = format!("fd {}", descriptor.as_raw_fd());
        let file = File::from(descriptor);
        match attached(&file) {
            Ok(request) if flags_in(&request) & COMPARED_FLAGS == FLAGS => {}
            _ => return Err(TapError::Flags(name)),
        }
        let non_blocking = fcntl_getfl(&file).and_then(|flags| fcntl_setfl(&file, flags | OFlags::NONBLOCK));
        non_blocking.map_err(|source| TapError::Setup { name: name.clone(), source: source.into() })?;
        let mut tap = Self::set_up(vec![file], name)?;
        // The name means something here only if the tap is in this namespace.
        if namespace(tap.file()).is_ok_and(|its| namespace_of_this_thread().is_ok_and(|ours| its == ours)) {
            tap.watch = attached(tap.file()).ok().and_then(|request| watch(&name_in(&request)));
        }
        Ok(tap)
    }

    /// What is set by one queue is that of all.
    fn set_up(files: Vec<File>, name: String) -> std::result::Result<Self, TapError> {
        let mut tap = Self::with(files);
        let set = |command, value: c_int| {
            // SAFETY: both commands read an int from the pointer.
            let result = check(unsafe { libc::ioctl(tap.as_raw_fd(), command, &value) });
            result.map_err(|source| TapError::Setup { name: name.clone(), source })
        };
        set(libc::TUNSETVNETHDRSZ, HEADER_SIZE as c_int)?;
        // The kernel's default. A smaller buffer may be set on an inherited tap: its frames would
        // wait for the network that the tap is connected to, and hold up all that the guest sends.
        set(libc::TUNSETSNDBUF, c_int::MAX)?;
        let all = OFFLOADS.iter().fold(0, |all, (_, offload)| all | offload);
        let supported = [all, all & !UDP_OFFLOADS, libc::TUN_F_CSUM];
        tap.offloads = supported.into_iter().find(|&offloads| tap.set_offloads(offloads).is_ok()).unwrap_or(0);
        Ok(tap)
    }

    fn with(files: Vec<File>) -> Self {
        let packet = || vec![0; HEADER_SIZE + MAX_FRAME_BYTES + 1].into_boxed_slice();
        let queues = files.into_iter().map(|file| TapQueue { file, packet: packet(), received: 0 }).collect();
        Self { queues, watch: None, offloads: 0 }
    }

    fn file(&self) -> &File {
        &self.queues[0].file
    }

    pub(super) fn queues(&self) -> usize {
        self.queues.len()
    }

    /// See [`Backend::sources`](super::backend::Backend::sources).
    pub(super) fn sources(&self, token: u32, queues: u32) -> Vec<Source> {
        let watch = self.watch.as_ref().map(|watch| watch.source(token));
        let further = (queues..).zip(&self.queues).skip(1);
        let further = further.map(|(token, queue)| Source::changes(&queue.file, token));
        std::iter::once(Source::changes(self, token)).chain(further).chain(watch).collect()
    }

    /// See [`Backend::changed`](super::backend::Backend::changed).
    pub(super) fn changed(&mut self) {
        if let Some(watch) = &mut self.watch {
            watch.update();
        }
    }

    /// `None` if it is not known.
    pub(super) fn link_state(&self) -> Option<LinkState> {
        self.watch.as_ref().map(LinkWatch::state)
    }

    /// See [`Backend::features`](super::backend::Backend::features).
    pub(super) fn features(&self) -> u64 {
        let to_guest = OFFLOADS.iter().filter(|(_, offload)| self.offloads & offload != 0);
        let to_guest = to_guest.fold(0, |features, (feature, _)| features | 1 << feature);
        // Offloads that the driver switches off are done by the host's kernel then.
        let control = if to_guest == 0 { 0 } else { 1 << VIRTIO_NET_F_CTRL_GUEST_OFFLOADS };
        to_guest | control | host_offloads(self.offloads & UDP_OFFLOADS != 0)
    }

    /// See [`Backend::set_features`](super::backend::Backend::set_features).
    pub(super) fn set_features(&self, features: u64) -> Result<()> {
        if self.offloads == 0 {
            return Ok(());
        }
        let accepted = OFFLOADS.iter().filter(|(feature, _)| features & 1 << feature != 0);
        let mut offloads = accepted.fold(0, |offloads, (_, offload)| offloads | offload);
        if offloads & UDP_OFFLOADS != UDP_OFFLOADS {
            offloads &= !UDP_OFFLOADS;
        }
        // The kernel rejects what a driver should not have accepted (virtio 1.3, 5.1.3.1).
        if offloads & TCP_OFFLOADS == 0 {
            offloads &= !libc::TUN_F_TSO_ECN;
        }
        if offloads & libc::TUN_F_CSUM == 0 {
            offloads = 0;
        }
        match self.set_offloads(offloads) {
            // The tap was deleted.
            Err(error) if error.raw_os_error() == Some(libc::EBADFD) => Ok(()),
            result => result,
        }
    }

    /// Sets which frames to the guest may be segmented and without checksums.
    fn set_offloads(&self, offloads: c_uint) -> Result<()> {
        // SAFETY: the command takes its argument by value.
        check(unsafe { libc::ioctl(self.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(offloads)) })
    }

    /// See [`Backend::receive`](super::backend::Backend::receive). The packet is cut to the length
    /// of the buffer.
    pub(super) fn receive(&mut self, queue: usize) -> Result<&mut [u8]> {
        let TapQueue { file, packet, received } = &mut self.queues[queue];
        while *received == 0 {
            match file.read(packet) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(length) => *received = length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(&mut packet[..*received])
    }

    pub(super) fn consume(&mut self, queue: usize) {
        self.queues[queue].received = 0;
    }

    /// One packet, header and frame.
    pub(super) fn send(&self, queue: usize, packet: &SentPacket<'_>) -> Result<()> {
        write_packet(self.queues[queue].file.as_fd(), Channel::Stream, &[packet.start()], &packet.rest)
    }
}

impl AsRawFd for Tap {
    fn as_raw_fd(&self) -> RawFd {
        self.file().as_raw_fd()
    }
}

/// Number of the interface of this name in our network namespace.
fn index(name: &str) -> Result<u32> {
    Ok(name_to_index(socket(AddressFamily::UNIX, SocketType::DGRAM, None)?, name)?)
}

/// Watches an interface of our network namespace, where that is permitted.
fn watch(name: &str) -> Option<LinkWatch> {
    LinkWatch::open(index(name).ok()?, libc::IFF_UP as u32).ok()
}

/// Device and inode of the network namespace that the tap is in.
fn namespace(file: &File) -> Result<(u64, u64)> {
    // SAFETY: the command takes no argument.
    let descriptor = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNGETDEVNETNS) };
    check(descriptor)?;
    // SAFETY: the command returned a new descriptor.
    let metadata = File::from(unsafe { OwnedFd::from_raw_fd(descriptor) }).metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

fn namespace_of_this_thread() -> Result<(u64, u64)> {
    let metadata = std::fs::metadata("/proc/thread-self/ns/net")?;
    Ok((metadata.dev(), metadata.ino()))
}

fn attach(file: &File, name: &str, flags: c_int) -> Result<()> {
    // SAFETY: ifreq is plain data, for which all zeroes is valid: an empty name and no flags.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The name is shorter than the field, so a zero stays at its end.
    request.ifr_name.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from as libc::c_char);
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the command reads and writes an ifreq.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &mut request) })
}

/// What the descriptor is attached to: name and flags.
fn attached(file: &File) -> Result<libc::ifreq> {
    // SAFETY: as in `attach`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: the command writes an ifreq. A descriptor of another kind refuses it, or takes it for
    // a command of its own of the same number, which by the number's coding writes no more than
    // this either.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNGETIFF, &mut request) })?;
    Ok(request)
}

fn flags_in(request: &libc::ifreq) -> c_int {
    // SAFETY: the flags were written by the command, or are the zeroes from before.
    c_int::from(unsafe { request.ifr_ifru.ifru_flags })
}

fn name_in(request: &libc::ifreq) -> String {
    let bytes = request.ifr_name.iter().map(|&byte| byte as u8).take_while(|&byte| byte != 0);
    String::from_utf8_lossy(&bytes.collect::<Vec<_>>()).into_owned()
}

fn check(result: c_int) -> Result<()> {
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

#[cfg(any(test, feature = "testing"))]
impl Tap {
    /// A tap without an interface, and its network: a socket that passes packets, each a header and
    /// a frame, as they are. For tests and fuzz targets.
    ///
    /// # Panics
    /// The host has no descriptor left.
    #[must_use]
    pub fn pair() -> (Self, OwnedFd) {
        let (tap, mut networks) = Self::pairs(1);
        (tap, networks.remove(0))
    }

    /// The same with several queues, each with a socket.
    ///
    /// # Panics
    /// The host has no descriptor left.
    #[must_use]
    pub fn pairs(queues: usize) -> (Self, Vec<OwnedFd>) {
        let flags = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
        let pair = |_| rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        let pairs = (0..queues).map(|queue| pair(queue).expect("a pair of sockets"));
        let (files, networks) = pairs.map(|(tap, network)| (File::from(tap), network)).unzip();
        (Self::with(files), networks)
    }
}

#[cfg(test)]
impl Tap {
    /// Another descriptor of the same attachment, like an inherited one.
    pub(super) fn descriptor(&self) -> OwnedFd {
        self.file().try_clone().expect("a descriptor").into()
    }
}
