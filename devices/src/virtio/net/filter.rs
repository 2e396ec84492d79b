// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which frames the guest wants: its address, its modes, and its tables of addresses and VLANs.
//! Pure. Virtio 1.3, 5.1.6.5.1 to 5.1.6.5.3.

use super::packet::ADDRESSES_SIZE;
use virtio_bindings::virtio_net::{VIRTIO_NET_F_CTRL_RX, VIRTIO_NET_F_CTRL_VLAN, VIRTIO_NET_F_CTRL_VQ};

/// An Ethernet address.
pub(super) type Address = [u8; 6];

/// Addresses that a table holds. With a longer one the guest gets all frames of this kind, which
/// 5.1.6.5.2 permits. Linux sends what its interface has: an address for each macvlan, a group for
/// each IPv6 address and service.
pub(super) const MAX_ADDRESSES: usize = 64;
/// VLANs are numbered by 12 bits.
pub(super) const MAX_VLANS: u16 = 1 << 12;

const BROADCAST: Address = [0xff; 6];
/// Set in the first byte of addresses of groups.
const GROUP_BIT: u8 = 1;

/// What the driver switches on and off: the commands of the class VIRTIO_NET_CTRL_RX, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Promiscuous,
    AllMulticast,
    AllUnicast,
    NoMulticast,
    NoUnicast,
    NoBroadcast,
}

impl Mode {
    pub(super) const ALL: [Self; 6] = [
        Self::Promiscuous,
        Self::AllMulticast,
        Self::AllUnicast,
        Self::NoMulticast,
        Self::NoUnicast,
        Self::NoBroadcast,
    ];
}

/// One table of addresses.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Table {
    /// At most [`MAX_ADDRESSES`].
    Of(Vec<Address>),
    /// There are too many.
    All,
}

impl Table {
    fn contains(&self, address: &Address) -> bool {
        matches!(self, Self::Of(addresses) if addresses.contains(address))
    }
}

/// What the driver has set since the device was activated.
#[derive(Debug)]
pub(super) struct Filter {
    checks_addresses: bool,
    address: Address,
    modes: [bool; Mode::ALL.len()],
    unicast: Table,
    multicast: Table,
    /// A bit for each. `None` if all are accepted.
    vlans: Option<Box<[u64; MAX_VLANS as usize / 64]>>,
}

impl Filter {
    /// For a driver that accepted `features`. Without those of filters all frames pass.
    pub(super) fn new(features: u64, address: Address) -> Self {
        let has = |bit: u32| features & 1 << VIRTIO_NET_F_CTRL_VQ != 0 && features & 1 << bit != 0;
        Self {
            checks_addresses: has(VIRTIO_NET_F_CTRL_RX),
            address,
            modes: [false; Mode::ALL.len()],
            unicast: Table::Of(Vec::new()),
            multicast: Table::Of(Vec::new()),
            vlans: has(VIRTIO_NET_F_CTRL_VLAN).then(|| Box::new([0; MAX_VLANS as usize / 64])),
        }
    }

    pub(super) fn set_mode(&mut self, mode: Mode, on: bool) {
        self.modes[mode as usize] = on;
    }

    pub(super) fn set_address(&mut self, address: Address) {
        self.address = address;
    }

    pub(super) fn set_tables(&mut self, unicast: Table, multicast: Table) {
        (self.unicast, self.multicast) = (unicast, multicast);
    }

    /// `vlan` is less than [`MAX_VLANS`].
    pub(super) fn set_vlan(&mut self, vlan: u16, accepted: bool) {
        if let Some(vlans) = &mut self.vlans {
            let (word, bit) = (&mut vlans[usize::from(vlan / 64)], 1 << (vlan % 64));
            *word = if accepted { *word | bit } else { *word & !bit };
        }
    }

    /// Whether the guest wants `frame`.
    pub(super) fn admits(&self, frame: &[u8]) -> bool {
        self.has(Mode::Promiscuous) || self.admits_vlan(frame) && (!self.checks_addresses || self.admits_address(frame))
    }

    pub(super) fn address(&self) -> Address {
        self.address
    }

    /// Those of unicast, and of multicast addresses.
    pub(super) fn tables(&self) -> [&Table; 2] {
        [&self.unicast, &self.multicast]
    }

    /// A bit for each; nothing if all are accepted.
    pub(super) fn vlans(&self) -> &[u64] {
        self.vlans.as_deref().map_or(&[], |vlans| &vlans[..])
    }

    pub(super) fn has(&self, mode: Mode) -> bool {
        self.modes[mode as usize]
    }

    fn admits_address(&self, frame: &[u8]) -> bool {
        // A frame that is too short is dropped elsewhere.
        let Some(to) = frame.first_chunk() else { return true };
        if *to == BROADCAST {
            return !self.has(Mode::NoBroadcast);
        }
        let (suppressed, all, table) = if to[0] & GROUP_BIT != 0 {
            (Mode::NoMulticast, Mode::AllMulticast, &self.multicast)
        } else {
            (Mode::NoUnicast, Mode::AllUnicast, &self.unicast)
        };
        let is_all = self.has(all) || *table == Table::All;
        // Linux has groups in its unicast table: those of the link, such as LLDP's.
        let is_listed = || *to == self.address || self.unicast.contains(to) || self.multicast.contains(to);
        !self.has(suppressed) && (is_all || is_listed())
    }

    fn admits_vlan(&self, frame: &[u8]) -> bool {
        let Some(vlans) = &self.vlans else { return true };
        // Of two tags the outer one of a provider is not in this table.
        let Some(&[kind @ .., high, low]) = frame.get(ADDRESSES_SIZE..).and_then(<[u8]>::first_chunk::<4>) else {
            return true;
        };
        if kind != (libc::ETH_P_8021Q as u16).to_be_bytes() {
            return true;
        }
        let vlan = u16::from_be_bytes([high, low]) % MAX_VLANS;
        // VLAN 0 is none: the tag holds a priority only.
        vlan == 0 || vlans[usize::from(vlan / 64)] & 1 << (vlan % 64) != 0
    }
}
