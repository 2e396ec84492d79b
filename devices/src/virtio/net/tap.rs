// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A tap of the host: found by name or inherited, checked, and set to the header of virtio. Opened
//! on `main`, used on the `io` event loop. Linux, `include/uapi/linux/if_tun.h`.
//!
//! A tap by name must exist; this never creates one. The attachment ends with the descriptor.
#![allow(unsafe_code, reason = "no safe wrapper offers the ioctls of a tap")]

use super::packet::HEADER_SIZE;
use libc::c_int;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketType, socket};
use std::fs::File;
use std::io::{Error, Read, Result, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

/// A frame device, no extra packet information, and virtio's header.
const FLAGS: c_int = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
/// Flags that are compared; the others make no difference.
const COMPARED_FLAGS: c_int = FLAGS | libc::IFF_TUN | libc::IFF_MULTI_QUEUE;

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
    /// A tun, a tap with several queues, or another kind of interface.
    #[error("{0} is not a tap with one queue, without packet information and with virtio headers")]
    Flags(String),
    /// The device file of all taps cannot be opened.
    #[error("cannot open /dev/net/tun")]
    Open(#[source] Error),
    /// Any other refusal of the host's kernel.
    #[error("cannot set up tap {name}")]
    Setup {
        /// Its name, or `fd N`.
        name: String,
        /// Why.
        source: Error,
    },
}

/// An attached tap.
#[derive(Debug)]
pub struct Tap {
    file: File,
    /// The host's kernel can pass on frames whose checksum the guest completes.
    pub(super) leaves_checksums: bool,
}

impl Tap {
    /// Attaches to the existing tap `name`.
    ///
    /// # Errors
    /// There is none, or it cannot be attached to.
    pub fn open(name: &str) -> std::result::Result<Self, TapError> {
        if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains(['/', '\0']) {
            return Err(TapError::Name(name.to_owned()));
        }
        // TUNSETIFF would create one, where that is permitted.
        if !exists(name) {
            return Err(TapError::Missing(name.to_owned()));
        }
        let mut options = File::options();
        let file = options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun");
        let file = file.map_err(TapError::Open)?;
        attach(&file, name).map_err(|source| match source.raw_os_error() {
            Some(libc::EBUSY) => TapError::Busy(name.to_owned()),
            Some(libc::EPERM | libc::EACCES) => TapError::Permission(name.to_owned()),
            Some(libc::EINVAL) => TapError::Flags(name.to_owned()),
            _ => TapError::Setup { name: name.to_owned(), source },
        })?;
        Self::set_up(file, name.to_owned())
    }

    /// Takes over a tap that another process has attached to.
    ///
    /// # Errors
    /// It is not a tap, or not of the required kind.
    pub fn inherit(descriptor: OwnedFd) -> std::result::Result<Self, TapError> {
        let name = format!("fd {}", descriptor.as_raw_fd());
        let file = File::from(descriptor);
        match attached_flags(&file) {
            Ok(flags) if flags & COMPARED_FLAGS == FLAGS => {}
            _ => return Err(TapError::Flags(name)),
        }
        let non_blocking = fcntl_getfl(&file).and_then(|flags| fcntl_setfl(&file, flags | OFlags::NONBLOCK));
        non_blocking.map_err(|source| TapError::Setup { name: name.clone(), source: source.into() })?;
        Self::set_up(file, name)
    }

    fn set_up(file: File, name: String) -> std::result::Result<Self, TapError> {
        let set = |command, value: c_int| {
            // SAFETY: both commands read an int from the pointer.
            let result = check(unsafe { libc::ioctl(file.as_raw_fd(), command, &value) });
            result.map_err(|source| TapError::Setup { name: name.clone(), source })
        };
        set(libc::TUNSETVNETHDRSZ, HEADER_SIZE as c_int)?;
        // The kernel's default. A smaller buffer may be set on an inherited tap: its frames would
        // wait for the network that the tap is connected to, and hold up all that the guest sends.
        set(libc::TUNSETSNDBUF, c_int::MAX)?;
        let mut tap = Self { file, leaves_checksums: false };
        tap.leaves_checksums = tap.leave_checksums(true).is_ok();
        Ok(tap)
    }

    /// Sets whether frames to the guest may come without their checksum.
    pub(super) fn leave_checksums(&self, leave: bool) -> Result<()> {
        let offloads = libc::c_ulong::from(if leave { libc::TUN_F_CSUM } else { 0 });
        // SAFETY: the command takes its argument by value.
        check(unsafe { libc::ioctl(self.file.as_raw_fd(), libc::TUNSETOFFLOAD, offloads) })
    }

    /// One packet, header and frame, cut to the length of `packet`.
    pub(super) fn receive(&self, packet: &mut [u8]) -> Result<usize> {
        (&self.file).read(packet)
    }

    /// One packet, header and frame.
    pub(super) fn send(&self, packet: &[u8]) -> Result<()> {
        (&self.file).write(packet).map(|_| ())
    }
}

impl AsRawFd for Tap {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

/// Whether there is an interface of this name in our network namespace.
fn exists(name: &str) -> bool {
    socket(AddressFamily::UNIX, SocketType::DGRAM, None).is_ok_and(|any| name_to_index(any, name).is_ok())
}

fn attach(file: &File, name: &str) -> Result<()> {
    // SAFETY: ifreq is plain data, for which all zeroes is valid: an empty name and no flags.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The name is shorter than the field, so a zero stays at its end.
    request.ifr_name.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from as libc::c_char);
    request.ifr_ifru.ifru_flags = FLAGS as libc::c_short;
    // SAFETY: the command reads and writes an ifreq.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &mut request) })
}

fn attached_flags(file: &File) -> Result<c_int> {
    // SAFETY: as in `attach`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: the command writes an ifreq. A descriptor of another kind refuses it, or takes it for
    // a command of its own of the same number, which by the number's coding writes no more than
    // this either.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNGETIFF, &mut request) })?;
    // SAFETY: the flags were written by the command, or are the zeroes from above.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok(c_int::from(flags))
}

fn check(result: c_int) -> Result<()> {
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

#[cfg(any(test, feature = "testing"))]
impl Tap {
    /// A tap without an interface, for tests and fuzz targets.
    ///
    /// # Panics
    /// The host has no `/dev/null`.
    #[must_use]
    pub fn unconnected() -> Self {
        let file = File::options().read(true).write(true).open("/dev/null").expect("/dev/null");
        Self { file, leaves_checksums: false }
    }
}

#[cfg(test)]
impl Tap {
    /// Another descriptor of the same attachment, like an inherited one.
    pub(super) fn descriptor(&self) -> OwnedFd {
        self.file.try_clone().expect("a descriptor").into()
    }
}
