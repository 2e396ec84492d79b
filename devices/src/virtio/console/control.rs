// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The feature of several ports and its control messages. Pure. Virtio 1.3, 5.3.3 and 5.3.6.2
//! (`struct virtio_console_control`).

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Number of the feature: several ports, and the control queues.
pub(super) const FEATURE_MULTIPORT: u32 = 1;

/// The driver is ready for messages (1), or is not (0).
pub(super) const DEVICE_READY: u16 = 0;
/// Announces a port.
pub(super) const PORT_ADD: u16 = 1;
/// The driver has set up the port (1), or could not (0).
pub(super) const PORT_READY: u16 = 3;
/// The port is a console.
pub(super) const CONSOLE_PORT: u16 = 4;
/// The other side has opened (1) or closed (0) the port.
pub(super) const PORT_OPEN: u16 = 6;
/// The name of the port follows.
pub(super) const PORT_NAME: u16 = 7;

/// A message without the name that may follow.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Message {
    pub(super) port: U32,
    pub(super) event: U16,
    pub(super) value: U16,
}

impl Message {
    pub(super) fn new(port: u32, event: u16, value: u16) -> Self {
        Self { port: port.into(), event: event.into(), value: value.into() }
    }
}
