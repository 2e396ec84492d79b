// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The machine's two buses, as the vCPU threads access them.

use devices::bus::{Action, Bus};
use kvm::{ExitReason, IoBus};

#[derive(Debug)]
pub(super) struct Buses {
    pub(super) ports: Bus,
    pub(super) mmio: Bus,
}

impl IoBus for Buses {
    fn port_read(&self, port: u16, data: &mut [u8]) {
        self.ports.read(u64::from(port), data);
    }

    fn port_write(&self, port: u16, data: &[u8]) -> Option<ExitReason> {
        exit_reason(self.ports.write(u64::from(port), data))
    }

    fn mmio_read(&self, address: u64, data: &mut [u8]) {
        self.mmio.read(address, data);
    }

    fn mmio_write(&self, address: u64, data: &[u8]) -> Option<ExitReason> {
        exit_reason(self.mmio.write(address, data))
    }
}

fn exit_reason(action: Action) -> Option<ExitReason> {
    match action {
        Action::None => None,
        Action::Reset => Some(ExitReason::Reset),
        Action::Poweroff => Some(ExitReason::Poweroff),
        Action::ExitStatus(status) => Some(ExitReason::ExitStatus(status)),
        Action::HostError(line) => Some(ExitReason::HostError(line)),
    }
}
