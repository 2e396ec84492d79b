// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The console device before activation: its ports, identity and configuration space. Built on
//! `main`, then called by vCPU threads.

use super::super::{ActivateError, Activation, DeviceIdentity, DeviceKind, VirtioDevice, Worker, read_config_bytes};
use super::control::FEATURE_MULTIPORT;
use super::port::PortConfig;
use super::saved::ConsoleState;
use super::worker::ConsoleWorker;
use crate::slot::Slot;
use crate::virtio::mmio::InvalidDeviceState;
use std::io::ErrorKind;
use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{Immutable, IntoBytes};

/// The console device as a type.
pub const KIND: DeviceKind = DeviceKind {
    device_id: VIRTIO_ID_CONSOLE,
    kernel_option: "CONFIG_VIRTIO_CONSOLE",
    kernel_module: "virtio_console",
    optional: false,
    savable: true,
    counters: None,
};

/// Linux fills the whole queue with buffers of a page each, whether they are needed or not, so it
/// is small.
const TO_DRIVER_QUEUE_SIZE: u16 = 16;
/// The same, for a port that never has input.
const NO_INPUT_QUEUE_SIZE: u16 = 2;
const FROM_DRIVER_QUEUE_SIZE: u16 = 32;

/// `struct virtio_console_config`. Only the number of ports belongs to a feature that is offered.
#[derive(Clone, Copy, Debug, Default, IntoBytes, Immutable)]
#[repr(C)]
struct ConfigSpace {
    columns: U16,
    rows: U16,
    max_nr_ports: U32,
    emergency_write: U32,
}

/// The console device.
#[derive(Debug)]
pub struct Console {
    identity: DeviceIdentity,
    config: ConfigSpace,
    ports: Vec<PortConfig>,
    /// Of the worker, while there is none.
    state: Slot<ConsoleState>,
    /// The next activation continues with `state`.
    continues: bool,
}

impl Console {
    /// A console with these ports, at least one.
    #[must_use]
    pub fn new(ports: Vec<PortConfig>) -> Self {
        let mut queue_sizes = Vec::new();
        for (number, port) in ports.iter().enumerate() {
            let to_driver = if port.input.is_some() { TO_DRIVER_QUEUE_SIZE } else { NO_INPUT_QUEUE_SIZE };
            queue_sizes.extend([to_driver, FROM_DRIVER_QUEUE_SIZE]);
            if number == 0 {
                queue_sizes.extend([TO_DRIVER_QUEUE_SIZE, FROM_DRIVER_QUEUE_SIZE]);
            }
        }
        let identity = DeviceIdentity {
            kind: &KIND,
            name: "console".to_owned(),
            features: 1 << FEATURE_MULTIPORT,
            queue_sizes,
            counters: None,
        };
        let config = ConfigSpace { max_nr_ports: (ports.len() as u32).into(), ..ConfigSpace::default() };
        Self { identity, config, ports, state: Slot::new(ConsoleState::default()), continues: false }
    }
}

impl VirtioDevice for Console {
    fn identity(&self) -> &DeviceIdentity {
        &self.identity
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(self.config.as_bytes(), offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<Vec<Box<dyn Worker>>, ActivateError> {
        // The worker before was dropped, and has put it back.
        let busy = || ActivateError { step: "cannot use the ports", source: ErrorKind::ResourceBusy.into() };
        let mut state = self.state.take().ok_or_else(busy)?;
        if !std::mem::take(&mut self.continues) {
            *state = ConsoleState::default();
        }
        // The host's ends outlive the worker: the next activation uses the same descriptors.
        Ok(vec![Box::new(ConsoleWorker::new(activation, self.ports.clone(), state))])
    }

    fn save(&self) -> Vec<u8> {
        let state = self.state.take().expect("the worker was dropped");
        state.to_bytes()
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), InvalidDeviceState> {
        let restored = ConsoleState::from_bytes(state, self.ports.len())?;
        *self.state.take().expect("there is no worker") = restored;
        self.continues = true;
        Ok(())
    }
}
