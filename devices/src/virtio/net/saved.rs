// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the driver has set by commands, as plain bytes: left by a worker when it is dropped, and saved
//! with the transport. A driver sets most of it only once.

use super::super::InvalidDeviceState;
use super::filter::{Address, Filter, MAX_ADDRESSES, MAX_VLANS, Mode, Table};
use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The state of the commands. Untrusted where it comes from a file.
#[derive(Clone, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Commanded {
    offloads: U64,
    /// A bit for each.
    vlans: [U64; MAX_VLANS as usize / 64],
    pairs: U16,
    /// A bit for each.
    modes: u8,
    /// Bits 0 and 1: the table of unicast, of multicast addresses was too long.
    overflows: u8,
    address: Address,
    /// Addresses in each table.
    counts: [u8; 2],
    tables: [[Address; MAX_ADDRESSES]; 2],
}

impl Default for Commanded {
    fn default() -> Self {
        Self::new_zeroed()
    }
}

impl Commanded {
    pub(super) fn new(filter: &Filter, offloads: u64, pairs: usize) -> Self {
        let mut state = Self { offloads: offloads.into(), pairs: (pairs as u16).into(), ..Self::default() };
        state.address = filter.address();
        for (bit, mode) in Mode::ALL.into_iter().enumerate() {
            state.modes |= u8::from(filter.has(mode)) << bit;
        }
        for (number, table) in filter.tables().into_iter().enumerate() {
            match table {
                Table::All => state.overflows |= 1 << number,
                Table::Of(addresses) => {
                    state.counts[number] = addresses.len() as u8;
                    state.tables[number][..addresses.len()].copy_from_slice(addresses);
                }
            }
        }
        for (saved, word) in state.vlans.iter_mut().zip(filter.vlans()) {
            *saved = (*word).into();
        }
        state
    }

    /// # Errors
    /// No driver can have set this.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidDeviceState> {
        let state = Self::read_from_bytes(bytes).map_err(|_| InvalidDeviceState)?;
        let is_possible = state.modes >> Mode::ALL.len() == 0
            && state.overflows >> 2 == 0
            && state.counts.iter().all(|count| usize::from(*count) <= MAX_ADDRESSES)
            && state.address[0] & 1 == 0;
        if is_possible { Ok(state) } else { Err(InvalidDeviceState) }
    }

    pub(super) fn offloads(&self) -> u64 {
        self.offloads.get()
    }

    pub(super) fn pairs(&self) -> u16 {
        self.pairs.get()
    }

    pub(super) fn address(&self) -> Address {
        self.address
    }

    /// Sets it in the filter of a new worker.
    pub(super) fn apply(&self, filter: &mut Filter) {
        filter.set_address(self.address);
        for (bit, mode) in Mode::ALL.into_iter().enumerate() {
            filter.set_mode(mode, self.modes >> bit & 1 != 0);
        }
        let table = |number: usize| match self.overflows >> number & 1 {
            0 => Table::Of(self.tables[number][..usize::from(self.counts[number])].to_vec()),
            _ => Table::All,
        };
        filter.set_tables(table(0), table(1));
        for vlan in 0..MAX_VLANS {
            filter.set_vlan(vlan, self.vlans[usize::from(vlan / 64)].get() >> (vlan % 64) & 1 != 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_states_are_rejected() {
        let good = Commanded { address: [2; 6], ..Commanded::default() };
        let bytes = good.as_bytes();
        assert_eq!(Commanded::from_bytes(bytes).unwrap().as_bytes(), bytes);
        let bad = [
            Commanded { modes: 1 << 6, ..good.clone() },
            Commanded { overflows: 4, ..good.clone() },
            Commanded { counts: [0, 65], ..good.clone() },
            Commanded { address: [1; 6], ..good.clone() },
        ];
        for state in &bad {
            assert!(Commanded::from_bytes(state.as_bytes()).is_err(), "{state:?}");
        }
        assert!(Commanded::from_bytes(&bytes[1..]).is_err());
        assert!(Commanded::from_bytes(&[bytes, &[0]].concat()).is_err());
    }
}
