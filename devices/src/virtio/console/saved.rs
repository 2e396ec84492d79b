// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the console's driver relies on besides the queues, as plain values and as bytes. Kept by the
//! device while there is no worker.
//!
//! The bytes are records of eight: one for each port, then the messages for the driver that wait for
//! a buffer, as they are sent, without names.

use super::control::{CONSOLE_PORT, Message, PORT_ADD, PORT_NAME, PORT_OPEN};
use super::transfer::MAX_TRANSMIT_BYTES;
use super::worker::MAX_MESSAGES;
use crate::virtio::mmio::InvalidDeviceState;
use std::collections::VecDeque;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// State of the ports between activation and reset.
#[derive(Debug, Default)]
pub(super) struct ConsoleState {
    /// None before the first activation.
    pub(super) ports: Vec<PortState>,
    pub(super) messages: VecDeque<Message>,
}

/// State of one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct PortState {
    /// 1 while a process in the guest has the port open, or 0.
    pub(super) guest_open: U32,
    /// Bytes of the first chain from the driver that the output has accepted.
    pub(super) passed_on: U32,
}

impl PortState {
    fn is_possible(&self) -> bool {
        self.guest_open.get() <= 1 && self.passed_on.get() as usize <= MAX_TRANSMIT_BYTES
    }
}

impl ConsoleState {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let messages = self.messages.iter().flat_map(|message| message.as_bytes().iter().copied());
        self.ports.as_bytes().iter().copied().chain(messages).collect()
    }

    /// Parses the state of a console with this many ports.
    pub(super) fn from_bytes(bytes: &[u8], ports: usize) -> Result<Self, InvalidDeviceState> {
        let (ports, rest) = <[PortState]>::ref_from_prefix_with_elems(bytes, ports).map_err(|_| InvalidDeviceState)?;
        let messages = <[Message]>::ref_from_bytes(rest).map_err(|_| InvalidDeviceState)?;
        let is_possible = |message: &Message| {
            let event = [PORT_ADD, CONSOLE_PORT, PORT_NAME, PORT_OPEN].contains(&message.event.get());
            event && message.value.get() == 1 && (message.port.get() as usize) < ports.len()
        };
        if !ports.iter().all(PortState::is_possible)
            || messages.len() > MAX_MESSAGES
            || !messages.iter().all(is_possible)
        {
            return Err(InvalidDeviceState);
        }
        Ok(Self { ports: ports.to_vec(), messages: messages.iter().copied().collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(guest_open: u32, passed_on: u32, messages: &[Message]) -> ConsoleState {
        let port = PortState { guest_open: guest_open.into(), passed_on: passed_on.into() };
        ConsoleState { ports: vec![port; 2], messages: messages.iter().copied().collect() }
    }

    #[test]
    fn console_state_survives_its_bytes() {
        let before = state(1, 1 << 20, &[Message::new(1, PORT_NAME, 1), Message::new(0, PORT_OPEN, 1)]);
        let after = ConsoleState::from_bytes(&before.to_bytes(), 2).unwrap();
        assert_eq!(after.ports, before.ports);
        assert_eq!(after.to_bytes(), before.to_bytes());
        assert_eq!(before.to_bytes().len(), 32);
    }

    #[test]
    fn console_rejects_impossible_states() {
        let message = Message::new(0, PORT_ADD, 1);
        let cases = [
            state(2, 0, &[]).to_bytes(),
            state(0, (1 << 20) + 1, &[]).to_bytes(),
            state(0, 0, &[Message::new(2, PORT_ADD, 1)]).to_bytes(),
            state(0, 0, &[Message::new(0, PORT_ADD, 0)]).to_bytes(),
            state(0, 0, &[Message::new(0, 3, 1)]).to_bytes(),
            state(0, 0, &[message; MAX_MESSAGES + 1]).to_bytes(),
            state(0, 0, &[message]).to_bytes()[..23].to_vec(),
            state(0, 0, &[]).to_bytes()[..8].to_vec(),
            Vec::new(),
        ];
        for bytes in &cases {
            assert_eq!(ConsoleState::from_bytes(bytes, 2).map(|_| ()), Err(InvalidDeviceState), "{bytes:?}");
        }
        assert!(ConsoleState::from_bytes(&state(0, 0, &[message; MAX_MESSAGES]).to_bytes(), 2).is_ok());
    }
}
