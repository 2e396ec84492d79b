// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Maps addresses to devices. Built on `main`, used by vCPU threads. It is frozen before they run,
//! so that a lookup takes no lock. The machine has two: one for ports, one for memory-mapped
//! registers.
//!
//! A device gets offsets, never its address. An access outside all devices, or only partly inside
//! one, reads as all ones and writes nothing.

use std::fmt;
use std::sync::Arc;

/// What the machine does after a write. Devices do not know how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// No device is at this address.
    None,
    /// The guest pulled the reset line.
    Reset,
    /// The guest switched the machine off.
    Poweroff,
    /// The guest wrote this status to the exit-status port.
    ExitStatus(u8),
    /// The host lacks a resource that a device needs; one line. The machine cannot go on.
    HostError(String),
}

/// A device on a [`Bus`]. Called by several vCPU threads at once.
pub trait BusDevice: Send + Sync {
    /// Reads `data.len()` bytes (1, 2, 4 or 8) at `offset`. `data` is all ones before.
    fn read(&self, offset: u64, data: &mut [u8]);
    /// Writes `data.len()` bytes (1, 2, 4 or 8) at `offset`.
    fn write(&self, offset: u64, data: &[u8]) -> Action;
}

/// A range that cannot be added to a bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverlapError {
    /// It overlaps that of another device.
    #[error("bus range {base:#x}+{length:#x} overlaps that of another device")]
    Overlap {
        /// First address.
        base: u64,
        /// Size of the range in bytes.
        length: u64,
    },
    /// It is empty, or exceeds the address space.
    #[error("bus range {base:#x}+{length:#x} is empty or wraps")]
    Range {
        /// First address.
        base: u64,
        /// Size of the range in bytes.
        length: u64,
    },
}

struct Entry {
    base: u64,
    length: u64,
    device: Arc<dyn BusDevice>,
}

/// Collects the devices of a [`Bus`].
#[derive(Default)]
pub struct BusBuilder {
    entries: Vec<Entry>,
}

impl BusBuilder {
    /// Adds `device` at `base..base + length`.
    ///
    /// # Errors
    /// The range is empty, wraps, or overlaps another.
    pub fn insert(&mut self, base: u64, length: u64, device: Arc<dyn BusDevice>) -> Result<(), OverlapError> {
        let end = base.checked_add(length).filter(|_| length > 0).ok_or(OverlapError::Range { base, length })?;
        let index = self.entries.partition_point(|entry| entry.base < base);
        let after = self.entries.get(index).is_some_and(|next| next.base < end);
        let before = index.checked_sub(1).is_some_and(|i| self.entries[i].base + self.entries[i].length > base);
        if before || after {
            return Err(OverlapError::Overlap { base, length });
        }
        self.entries.insert(index, Entry { base, length, device });
        Ok(())
    }

    /// Freezes the map.
    #[must_use]
    pub fn build(self) -> Bus {
        Bus { entries: self.entries.into_boxed_slice() }
    }
}

/// A frozen map from ranges to devices.
pub struct Bus {
    entries: Box<[Entry]>,
}

impl Bus {
    /// Fills `data` from the device at `address`, or with all ones.
    pub fn read(&self, address: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some((device, offset)) = self.find(address, data.len()) {
            device.read(offset, data);
        }
    }

    /// Writes `data` to the device at `address`, if there is one.
    #[must_use]
    pub fn write(&self, address: u64, data: &[u8]) -> Action {
        self.find(address, data.len()).map_or(Action::None, |(device, offset)| device.write(offset, data))
    }

    fn find(&self, address: u64, length: usize) -> Option<(&dyn BusDevice, u64)> {
        let index = self.entries.partition_point(|entry| entry.base <= address).checked_sub(1)?;
        let entry = &self.entries[index];
        let offset = address - entry.base;
        let end = offset.checked_add(length as u64)?;
        (end <= entry.length).then_some((&*entry.device, offset))
    }
}

fn ranges(entries: &[Entry], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.debug_list().entries(entries.iter().map(|entry| entry.base..entry.base + entry.length)).finish()
}

impl fmt::Debug for BusBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ranges(&self.entries, f)
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ranges(&self.entries, f)
    }
}

#[cfg(test)]
#[path = "bus_tests.rs"]
mod tests;
