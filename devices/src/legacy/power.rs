// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The registers by which a guest with hardware-reduced ACPI switches the machine off or resets it:
//! sleep control, sleep status (ACPI specification 6.5, 4.8.3.7) and the FADT's reset register, a
//! byte each. Called by vCPU threads.
//!
//! | offset | register | effect |
//! |---|---|---|
//! | 0 | sleep control | with `SLP_EN`: enters the sleep of type `SLP_TYP`; only "off" exists |
//! | 1 | sleep status | always zero: the machine never wakes, because it never sleeps |
//! | 2 | reset | the FADT's reset value resets the machine |

use crate::bus::{Action, BusDevice};

/// Number of ports.
pub const LENGTH: u64 = 3;

const SLEEP_CONTROL: u64 = 0;
const RESET: u64 = 2;

const SLEEP_TYPE_SHIFT: u8 = 2;
const SLEEP_TYPE_MASK: u8 = 0x7;
const SLEEP_ENABLE: u8 = 1 << 5;

/// The three registers. The values are those of the guest's ACPI tables.
#[derive(Clone, Copy, Debug)]
pub struct PowerRegisters {
    /// `SLP_TYP` of `\_S5`.
    pub off: u8,
    /// The FADT's reset value.
    pub reset: u8,
}

impl BusDevice for PowerRegisters {
    fn read(&self, _: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&self, offset: u64, data: &[u8]) -> Action {
        match (offset, data) {
            (SLEEP_CONTROL, &[value]) if value & SLEEP_ENABLE != 0 => {
                let sleep_type = value >> SLEEP_TYPE_SHIFT & SLEEP_TYPE_MASK;
                if sleep_type == self.off { Action::Poweroff } else { Action::None }
            }
            (RESET, &[value]) if value == self.reset => Action::Reset,
            _ => Action::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POWER: PowerRegisters = PowerRegisters { off: 5, reset: 1 };

    /// Every byte that has an effect at `offset`, and the effect.
    fn actions(offset: u64) -> Vec<(u8, Action)> {
        let actions = (0..=255).map(|value| (value, POWER.write(offset, &[value])));
        actions.filter(|(_, action)| *action != Action::None).collect()
    }

    #[test]
    fn sleep_control_needs_the_type_and_the_enable_bit() {
        // Bits 0, 1, 6 and 7 are reserved and ignored.
        let off: Vec<u8> = (0..=255).filter(|value| value & 0x3c == 5 << 2 | 1 << 5).collect();
        assert_eq!(actions(0), off.iter().map(|value| (*value, Action::Poweroff)).collect::<Vec<_>>());
    }

    #[test]
    fn only_the_reset_value_resets_and_status_ignores_writes() {
        assert_eq!(actions(2), [(1, Action::Reset)]);
        assert_eq!(actions(1), []);
    }

    #[test]
    fn power_registers_read_zero_and_ignore_wide_writes() {
        let mut data = [0xff; 2];
        POWER.read(0, &mut data);
        assert_eq!(data, [0, 0]);
        assert_eq!(POWER.write(0, &[0x34, 0]), Action::None);
    }
}
