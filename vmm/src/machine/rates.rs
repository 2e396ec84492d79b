// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The rate limits of a machine's disks and interfaces, as clients read and change them. On `main`.

use crate::config::limits::Limits;
use devices::rate_limit::RateControl;

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
    pub(super) disks: Vec<(String, RateControl)>,
    /// By the names of the interfaces in the guest.
    pub(super) networks: Vec<(String, RateControl)>,
}

impl Rates {
    /// All limits at this moment.
    pub(super) fn all(&self) -> Limits {
        Limits {
            disks: self.disks.iter().map(|(name, rates)| (name.clone(), rates.limits().into())).collect(),
            networks: self.networks.iter().map(|(name, rates)| (name.clone(), rates.limits().into())).collect(),
        }
    }

    /// Makes all of the changes or none.
    pub(super) fn change(&self, limits: &Limits) -> Result<(), UnknownDeviceError> {
        let disks = limits.disks.iter().map(|(name, change)| Ok((find("disk", &self.disks, name)?, change)));
        let disks = disks.collect::<Result<Vec<_>, _>>()?;
        let networks =
            limits.networks.iter().map(|(name, change)| Ok((find("network", &self.networks, name)?, change)));
        let networks = networks.collect::<Result<Vec<_>, _>>()?;
        disks.into_iter().for_each(|(rates, change)| rates.set(change.change(rates.limits())));
        networks.into_iter().for_each(|(rates, change)| rates.set(change.change(rates.limits())));
        Ok(())
    }
}

fn find<'r>(
    kind: &'static str,
    devices: &'r [(String, RateControl)],
    name: &str,
) -> Result<&'r RateControl, UnknownDeviceError> {
    let found = devices.iter().find(|(other, _)| other == name).map(|(_, rates)| rates);
    found.ok_or_else(|| {
        let known: Vec<&str> = devices.iter().map(|(name, _)| &**name).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        UnknownDeviceError { kind, name: name.to_owned(), known }
    })
}
