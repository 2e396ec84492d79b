// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What each monitor runs, and the result.

use super::tap::Tap;
use std::path::PathBuf;
use std::process::Command;

/// A guest, the same for all monitors.
pub(super) struct Guest {
    /// The name of a test image.
    pub(super) image: &'static str,
    pub(super) command: Vec<String>,
    pub(super) memory_mib: u32,
    /// A writable disk besides the root, with the serial `bench`.
    pub(super) disk: Option<PathBuf>,
    pub(super) network: Network,
    /// The beginning of the monitor's command line, if it runs in a network namespace of its own.
    pub(super) namespace: Vec<String>,
}

/// The host's side of a network interface.
#[derive(Clone)]
pub(super) enum Network {
    None,
    Tap(Tap),
    /// passt carries the frames to the sockets of the namespace.
    User,
    /// The namespace's interface `eth0`, which the monitor takes.
    Adopted,
    /// A tap that the kernel connects with the namespace's interface, in place of which the guest is on the network.
    Mirrored {
        tap: &'static str,
        /// coracle's options of the interface.
        options: String,
    },
}

impl Guest {
    /// With 1 vCPU and 128 MiB.
    pub(super) fn new(image: &'static str, command: &[&str]) -> Guest {
        let command = command.iter().map(|word| (*word).to_owned()).collect();
        Guest { image, command, memory_mib: 128, disk: None, network: Network::None, namespace: Vec::new() }
    }

    pub(super) fn tap(&self) -> Option<Tap> {
        match self.network {
            Network::Tap(tap) => Some(tap),
            _ => None,
        }
    }

    /// The same command in the guest's namespace.
    pub(super) fn in_namespace(&self, command: Command) -> Command {
        let [program, options @ ..] = &*self.namespace else { return command };
        let mut inside = Command::new(program);
        inside.args(options).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        inside
    }
}

pub(super) struct Outcome {
    /// Microseconds since the start of the process.
    pub(super) first_byte_us: u64,
    pub(super) end_us: u64,
    /// User and system time of the process, that of its guest included.
    pub(super) cpu_us: u64,
    pub(super) stdout: Vec<u8>,
}
