// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command and status port of the keyboard controller (i8042), 0x64: the only one that is used
//! without a keyboard. A guest that reboots "through the keyboard" waits until the controller's
//! input buffer is empty and then pulses the reset line. Called by vCPU threads.

use crate::bus::{Action, BusDevice};

/// The port on a PC.
pub const PORT: u64 = 0x64;
/// Number of ports.
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
    fn only_the_reset_command_resets() {
        let resets = (0..=255).filter(|&command| ResetPort.write(0, &[command]) == Action::Reset).collect::<Vec<u8>>();
        assert_eq!(resets, [PULSE_RESET]);
    }

    #[test]
    fn controller_is_always_ready_for_a_command() {
        let mut status = [0xff];
        ResetPort.read(0, &mut status);
        assert_eq!(status, [0]);
    }
}
