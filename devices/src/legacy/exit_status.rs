// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A port on which a guest without an operating system ends the machine with a status, as test kernels like it. The
//! containers' init does not use it: it reports on the control port. Called by vCPU threads.

use crate::bus::{Action, BusDevice};

/// Where test kernels look for it.
pub const PORT: u64 = 0xf4;
/// Ports it takes.
pub const LENGTH: u64 = 1;

/// The exit-status port: a write of one byte ends the machine with it.
#[derive(Debug, Default)]
pub struct ExitStatusPort;

impl BusDevice for ExitStatusPort {
    fn read(&self, _: u64, _: &mut [u8]) {}

    fn write(&self, _: u64, data: &[u8]) -> Action {
        match data {
            &[status] => Action::ExitStatus(status),
            _ => Action::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_is_the_status_and_anything_wider_is_ignored() {
        assert_eq!(ExitStatusPort.write(0, &[7]), Action::ExitStatus(7));
        assert_eq!(ExitStatusPort.write(0, &[7, 0]), Action::None);
    }
}
