// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A port on which a guest without an operating system, e.g. a test kernel, ends the machine with a
//! status. PID 1 of an image does not use it: it reports on the control port. Called by vCPU
//! threads.

use crate::bus::{Action, BusDevice};

/// The port that test kernels use.
pub const PORT: u64 = 0xf4;
/// Number of ports.
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
    fn exit_status_port_takes_one_byte_and_ignores_wider_writes() {
        assert_eq!(ExitStatusPort.write(0, &[7]), Action::ExitStatus(7));
        assert_eq!(ExitStatusPort.write(0, &[7, 0]), Action::None);
    }
}
