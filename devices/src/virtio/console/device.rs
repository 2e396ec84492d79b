// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The console device before activation: its ports, identity and configuration space. Built on `main`, then asked by vCPU
//! threads.

use super::super::{ActivateError, Activation, DeviceIdentity, VirtioDevice, Worker, read_config_bytes};
use super::control::FEATURE_MULTIPORT;
use super::port::{PortConfig, PortInput, PortOutput, PortStream};
use super::worker::ConsoleWorker;
use std::sync::Arc;
use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{Immutable, IntoBytes};

/// A driver fills the whole of these with buffers of a page each, whether they are needed or not, so they are small.
const TO_DRIVER: u16 = 16;
/// The same, of a port that never has input.
const TO_DRIVER_UNUSED: u16 = 2;
const FROM_DRIVER: u16 = 32;

/// `struct virtio_console_config`; only the number of ports is of a negotiated feature.
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
}

impl Console {
    /// A console with these ports, at least one.
    #[must_use]
    pub fn new(ports: Vec<PortConfig>) -> Self {
        let mut queue_sizes = Vec::new();
        for (number, port) in ports.iter().enumerate() {
            queue_sizes.extend([if port.input.is_some() { TO_DRIVER } else { TO_DRIVER_UNUSED }, FROM_DRIVER]);
            if number == 0 {
                queue_sizes.extend([TO_DRIVER, FROM_DRIVER]);
            }
        }
        let identity = DeviceIdentity {
            device_id: VIRTIO_ID_CONSOLE,
            name: "console".to_owned(),
            kernel_option: "CONFIG_VIRTIO_CONSOLE",
            features: 1 << FEATURE_MULTIPORT,
            queue_sizes,
        };
        let config = ConfigSpace { max_nr_ports: (ports.len() as u32).into(), ..ConfigSpace::default() };
        Self { identity, config, ports }
    }
}

impl VirtioDevice for Console {
    fn identity(&self) -> &DeviceIdentity {
        &self.identity
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(self.config.as_bytes(), offset, data);
    }

    fn activate(&mut self, activation: Activation) -> Result<Box<dyn Worker>, ActivateError> {
        // The worker is gone after a reset, the ports are not: it gets handles of its own.
        let ports = self.ports.iter().map(try_clone).collect::<std::io::Result<Vec<_>>>();
        let ports = ports.map_err(|source| ActivateError { step: "cannot share the ports' descriptors", source })?;
        Ok(Box::new(ConsoleWorker::new(activation, ports)))
    }
}

fn try_clone(port: &PortConfig) -> std::io::Result<PortConfig> {
    let input = port.input.as_ref().map(|input| input.0.try_clone().map(PortInput)).transpose()?;
    let output = match &port.output {
        Some(PortOutput::Stream(stream)) => Some(PortOutput::Stream(PortStream(stream.0.try_clone()?))),
        Some(PortOutput::Log(log)) => Some(PortOutput::Log(Arc::clone(log))),
        None => None,
    };
    Ok(PortConfig { name: port.name, is_console: port.is_console, input, output, monitor: Arc::clone(&port.monitor) })
}
