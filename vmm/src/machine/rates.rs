// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The rate limits of a machine's disks and interfaces, as clients read and change them. On `main`.

use crate::config::limits::{DeviceLimits, Limits};
use devices::rate_limit::RateControl;
use std::collections::BTreeMap;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("no {kind} `{name}`; the machine has: {known}")]
pub(super) struct UnknownDeviceError {
    kind: &'static str,
    name: String,
    known: String,
}

/// In the order in which the guest sees the devices.
#[derive(Debug, Default)]
pub(super) struct Rates {
    disks: Devices,
    networks: Devices,
}

impl UnknownDeviceError {
    /// `known` are the names of the machine's devices of this kind.
    pub(super) fn new<'a>(kind: &'static str, name: &str, known: impl Iterator<Item = &'a str>) -> Self {
        let known: Vec<&str> = known.collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Self { kind, name: name.to_owned(), known }
    }
}

impl Rates {
    pub(super) fn add_disk(&mut self, serial: String, control: RateControl) {
        self.disks.0.push((serial, control));
    }

    /// `name` is that of the interface in the guest.
    pub(super) fn add_network(&mut self, name: String, control: RateControl) {
        self.networks.0.push((name, control));
    }

    /// All limits at this moment.
    pub(super) fn all(&self) -> Limits {
        Limits { disks: self.disks.limits(), networks: self.networks.limits() }
    }

    /// Makes all of the changes or none.
    pub(super) fn change(&self, limits: &Limits) -> Result<(), UnknownDeviceError> {
        let disks = self.disks.find("disk", &limits.disks)?;
        let networks = self.networks.find("network", &limits.networks)?;
        change(&disks);
        change(&networks);
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Devices(Vec<(String, RateControl)>);

impl Devices {
    fn limits<L: DeviceLimits>(&self) -> BTreeMap<String, L> {
        self.0.iter().map(|(name, control)| (name.clone(), L::current(control.limits()))).collect()
    }

    /// The device of each change.
    fn find<L: DeviceLimits + Copy>(
        &self,
        kind: &'static str,
        changes: &BTreeMap<String, L>,
    ) -> Result<Vec<(&RateControl, L)>, UnknownDeviceError> {
        let find = |(name, change): (&String, &L)| {
            let found = self.0.iter().find(|(other, _)| other == name);
            let known = || self.0.iter().map(|(name, _)| &**name);
            found.map(|(_, control)| (control, *change)).ok_or_else(|| UnknownDeviceError::new(kind, name, known()))
        };
        changes.iter().map(find).collect()
    }
}

fn change<L: DeviceLimits + Copy>(changes: &[(&RateControl, L)]) {
    changes.iter().for_each(|(control, change)| control.set(change.change(control.limits())));
}
