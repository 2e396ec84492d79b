// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The kernel's uevents (`lib/kobject_uevent.c`), to wait for drivers.

use super::failure::{Failure, Step};
use core::mem::MaybeUninit;
use rustix::fd::OwnedFd;
use rustix::io::{Errno, read};
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};

/// Multicast group of the kernel's uevents.
const KERNEL_GROUP: u32 = 1;

/// Waits for a state that a uevent follows.
#[derive(Default)]
pub(crate) struct Uevents {
    socket: Option<OwnedFd>,
}

impl Uevents {
    /// Returns at once the first time, after subscribing: what was reached before must be looked at
    /// again. Later, returns at the next uevent of any device.
    pub(crate) fn wait(&mut self, step: &'static str) -> Result<(), Failure> {
        if let Some(socket) = &self.socket {
            let mut event = [MaybeUninit::<u8>::uninit(); 2048];
            return match read(socket, &mut event) {
                // Events were lost, so there were some.
                Ok(_) | Err(Errno::NOBUFS) => Ok(()),
                Err(errno) => Err(Failure::setup(step, "wait for devices", errno)),
            };
        }
        let socket =
            socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(netlink::KOBJECT_UEVENT))
                .step(step, "listen for devices")?;
        bind(&socket, &SocketAddrNetlink::new(0, KERNEL_GROUP)).step(step, "listen for devices")?;
        self.socket = Some(socket);
        Ok(())
    }
}
