// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The one port of the keyboard controller (i8042) that matters without a keyboard: its command and status port, 0x64.
//! A guest that reboots "through the keyboard" waits until the controller's input buffer is empty and then pulses the
//! reset line. Called by vCPU threads.

use crate::bus::{Action, BusDevice};

/// Where a PC has it.
pub const PORT: u64 = 0x64;
/// Ports it takes.
pub const LENGTH: u64 = 1;

/// Command: pulse output line 0, which is the CPU's reset.
const PULSE_RESET: u8 = 0xfe;
/// Status: nothing to read, ready for a command.
const IDLE: u8 = 0;

/// The command and status port.
#[derive(Debug, Default)]
pub struct ResetPort;

impl BusDevice for ResetPort {
    fn read(&self, _: u64, data: &mut [u8]) {
        data.fill(IDLE);
    }

    fn write(&self, _: u64, data: &[u8]) -> Action {
        if data == [PULSE_RESET] { Action::Reset } else { Action::None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_reset_command_pulls_the_line() {
        let resets = (0..=255).filter(|&command| ResetPort.write(0, &[command]) == Action::Reset).collect::<Vec<u8>>();
        assert_eq!(resets, [PULSE_RESET]);
    }

    #[test]
    fn the_controller_is_always_ready_for_a_command() {
        let mut status = [0xff];
        ResetPort.read(0, &mut status);
        assert_eq!(status, [0]);
    }
}
