// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Commands of the control queue, read from their chains. Called on the event loop of the
//! interface. Virtio 1.3, 5.1.6.5 (`struct virtio_net_ctrl`).
//!
//! A command is valid if its feature was negotiated, its data has exactly the length that belongs
//! to it, and each value is one that the specification knows. Any other gets VIRTIO_NET_ERR and
//! changes nothing.

use super::super::chain::Reader;
use super::filter::{Address, MAX_ADDRESSES, MAX_VLANS, Mode, Table};
use super::packet::is_offload_set;
use crate::planted::{PlantedFault, is_planted};
use std::time::{Duration, Instant};
use virtio_bindings::virtio_net::{
    VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET, VIRTIO_NET_CTRL_MAC,
    VIRTIO_NET_CTRL_MAC_ADDR_SET, VIRTIO_NET_CTRL_MAC_TABLE_SET, VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET,
    VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_VLAN, VIRTIO_NET_CTRL_VLAN_ADD, VIRTIO_NET_CTRL_VLAN_DEL,
    VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, VIRTIO_NET_F_CTRL_MAC_ADDR, VIRTIO_NET_F_CTRL_RX, VIRTIO_NET_F_CTRL_RX_EXTRA,
    VIRTIO_NET_F_CTRL_VLAN, VIRTIO_NET_F_MQ,
};

/// Modes of VIRTIO_NET_F_CTRL_RX; the others are those of VIRTIO_NET_F_CTRL_RX_EXTRA.
const BASIC_MODES: usize = 2;

/// What the driver wants.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    Mode(Mode, bool),
    Tables {
        unicast: Table,
        multicast: Table,
    },
    Address(Address),
    Vlan(u16, bool),
    /// Bits of features.
    Offloads(u64),
    /// The pairs of queues to be used.
    Pairs(u16),
}

impl Command {
    /// Reads one command. `None` if it is not valid for a driver that accepted `features` and has
    /// `max_pairs` pairs of queues.
    pub(super) fn read(reader: &mut Reader<'_>, features: u64, max_pairs: u16) -> Option<Self> {
        let [class, command] = read(reader)?;
        let has = |bit: u32| features & 1 << bit != 0;
        let command = match (u32::from(class), u32::from(command)) {
            (VIRTIO_NET_CTRL_RX, number) => {
                let mode = *Mode::ALL.get(number as usize)?;
                let is_basic = (number as usize) < BASIC_MODES;
                let feature = if is_basic { VIRTIO_NET_F_CTRL_RX } else { VIRTIO_NET_F_CTRL_RX_EXTRA };
                let [on] = read(reader)?;
                (has(feature) && on <= 1).then_some(Self::Mode(mode, on == 1))?
            }
            (VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_TABLE_SET) if has(VIRTIO_NET_F_CTRL_RX) => {
                Self::Tables { unicast: read_table(reader)?, multicast: read_table(reader)? }
            }
            (VIRTIO_NET_CTRL_MAC, VIRTIO_NET_CTRL_MAC_ADDR_SET) if has(VIRTIO_NET_F_CTRL_MAC_ADDR) => {
                let address: Address = read(reader)?;
                // An interface is not a group.
                (address[0] & 1 == 0 && address != [0; 6]).then_some(Self::Address(address))?
            }
            (VIRTIO_NET_CTRL_VLAN, command @ (VIRTIO_NET_CTRL_VLAN_ADD | VIRTIO_NET_CTRL_VLAN_DEL))
                if has(VIRTIO_NET_F_CTRL_VLAN) =>
            {
                let vlan = u16::from_le_bytes(read(reader)?);
                (vlan < MAX_VLANS).then_some(Self::Vlan(vlan, command == VIRTIO_NET_CTRL_VLAN_ADD))?
            }
            (VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET) if has(VIRTIO_NET_F_MQ) => {
                let pairs = u16::from_le_bytes(read(reader)?);
                let exists = (1..=max_pairs).contains(&pairs);
                let is_accepted = exists || is_planted(PlantedFault::PairCount);
                is_accepted.then_some(Self::Pairs(pairs.clamp(1, max_pairs)))?
            }
            (VIRTIO_NET_CTRL_GUEST_OFFLOADS, VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET)
                if has(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) =>
            {
                let offloads = u64::from_le_bytes(read(reader)?);
                is_offload_set(offloads, features).then_some(Self::Offloads(offloads))?
            }
            _ => return None,
        };
        (reader.remaining() == 0 || is_planted(PlantedFault::CommandLength)).then_some(command)
    }
}

fn read<const N: usize>(reader: &mut Reader<'_>) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

/// A number and as many addresses. Those of a table that is too long are not read.
fn read_table(reader: &mut Reader<'_>) -> Option<Table> {
    let count = u32::from_le_bytes(read(reader)?) as usize;
    // It does not overflow: usize has 64 bits.
    let bytes = count * size_of::<Address>();
    if bytes > reader.remaining() {
        return None;
    }
    if count > MAX_ADDRESSES {
        reader.skip(bytes);
        return Some(Table::All);
    }
    (0..count).map(|_| read(reader)).collect::<Option<_>>().map(Table::Of)
}

/// How often the offloads may change: each change holds the lock of all interfaces of the host.
/// Linux changes them when a program is attached to the interface.
#[derive(Debug)]
pub(super) struct OffloadChanges {
    since: Instant,
    count: u32,
}

const MAX_OFFLOAD_CHANGES: u32 = 32;
const OFFLOAD_CHANGES_PERIOD: Duration = Duration::from_secs(1);

impl OffloadChanges {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, count: 0 }
    }

    /// Counts one change. `false` if there were too many.
    pub(super) fn admits(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) >= OFFLOAD_CHANGES_PERIOD {
            *self = Self::new(now);
        }
        self.count += 1;
        self.count <= MAX_OFFLOAD_CHANGES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offloads_change_some_times_in_each_second() {
        let start = Instant::now();
        let mut changes = OffloadChanges::new(start);
        for second in 0..3 {
            let now = start + second * OFFLOAD_CHANGES_PERIOD;
            assert_eq!((0..100).filter(|_| changes.admits(now)).count(), 32);
        }
    }
}
