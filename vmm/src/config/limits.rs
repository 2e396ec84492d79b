// SPDX-License-Identifier: Apache-2.0 OR MIT
//! New limits for the disks and interfaces of a running machine: the options of `coracle update`,
//! and body and answer of `POST /v1/limits`.

use super::rate::{self, RateError, RateWords};
use devices::rate_limit::RateLimits;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::str::FromStr;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LimitsError {
    #[error("`{0}`: expected a name, then limits like `root,read-bps=10m`, of which 0 lifts one")]
    Form(String),
    #[error("unknown word `{0}`; expected {1}")]
    Word(String, &'static str),
    #[error(transparent)]
    Rate(#[from] RateError),
}

/// In a request: what is absent stays as it is, 0 lifts a limit. In an answer: what is absent is
/// not limited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    /// By the serials of the disks.
    pub(crate) disks: BTreeMap<String, DiskLimits>,
    /// By the names of the interfaces in the guest.
    pub(crate) networks: BTreeMap<String, NetworkLimits>,
}

/// Bytes and requests for each second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct DiskLimits {
    pub(crate) read_bps: Option<u64>,
    pub(crate) read_iops: Option<u64>,
    pub(crate) write_bps: Option<u64>,
    pub(crate) write_iops: Option<u64>,
}

/// Bytes and packets for each second, as the guest receives (rx) and sends (tx) them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct NetworkLimits {
    pub(crate) rx_bps: Option<u64>,
    pub(crate) rx_pps: Option<u64>,
    pub(crate) tx_bps: Option<u64>,
    pub(crate) tx_pps: Option<u64>,
}

/// The limits of one kind of device, in the order of its words.
pub(crate) trait DeviceLimits: From<[Option<u64>; 4]> {
    const WORDS: RateWords;
    const EXPECTED: &'static str;

    fn numbers(self) -> [Option<u64>; 4];

    /// `limits` with these changes.
    fn change(self, limits: RateLimits) -> RateLimits {
        rate::change(limits, self.numbers())
    }

    fn current(limits: RateLimits) -> Self {
        rate::numbers(limits).into()
    }
}

impl From<[Option<u64>; 4]> for DiskLimits {
    fn from([read_bps, read_iops, write_bps, write_iops]: [Option<u64>; 4]) -> Self {
        Self { read_bps, read_iops, write_bps, write_iops }
    }
}

impl DeviceLimits for DiskLimits {
    const WORDS: RateWords = rate::DISK;
    const EXPECTED: &'static str = "read-bps=RATE, read-iops=N, write-bps=RATE or write-iops=N";

    fn numbers(self) -> [Option<u64>; 4] {
        [self.read_bps, self.read_iops, self.write_bps, self.write_iops]
    }
}

impl From<[Option<u64>; 4]> for NetworkLimits {
    fn from([rx_bps, rx_pps, tx_bps, tx_pps]: [Option<u64>; 4]) -> Self {
        Self { rx_bps, rx_pps, tx_bps, tx_pps }
    }
}

impl DeviceLimits for NetworkLimits {
    const WORDS: RateWords = rate::NETWORK;
    const EXPECTED: &'static str = "rx-bps=RATE, rx-pps=N, tx-bps=RATE or tx-pps=N";

    fn numbers(self) -> [Option<u64>; 4] {
        [self.rx_bps, self.rx_pps, self.tx_bps, self.tx_pps]
    }
}

/// A device by its name, and its new limits: `root,read-bps=10m,write-iops=0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change<L>(pub(crate) String, pub(crate) L);

impl<L: DeviceLimits> FromStr for Change<L> {
    type Err = LimitsError;

    fn from_str(text: &str) -> Result<Self, LimitsError> {
        let form = || LimitsError::Form(text.to_owned());
        let (name, limits) = text.split_once(',').ok_or_else(form)?;
        if name.is_empty() || name.contains('=') {
            return Err(form());
        }
        let mut numbers = [None; 4];
        for word in limits.split(',') {
            let unknown = || LimitsError::Word(word.to_owned(), L::EXPECTED);
            let (key, value) = word.split_once('=').ok_or_else(unknown)?;
            if !L::WORDS.parse_change(&mut numbers, key, value)? {
                return Err(unknown());
            }
        }
        Ok(Self(name.to_owned(), numbers.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU64;

    #[test]
    fn words_change_only_what_they_name() {
        let Change::<DiskLimits>(name, limits) = "root,read-bps=10m,write-iops=0".parse().unwrap();
        assert_eq!((&*name, limits.read_bps, limits.write_iops), ("root", Some(10 << 20), Some(0)));
        let mut before = RateLimits::default();
        before.to_guest.operations = NonZeroU64::new(7);
        before.from_guest.operations = NonZeroU64::new(8);
        let after = limits.change(before);
        assert_eq!((after.to_guest.bytes, after.to_guest.operations), (NonZeroU64::new(10 << 20), NonZeroU64::new(7)));
        assert_eq!(after.from_guest.operations, None, "0 lifts it");
        let seen = DiskLimits { read_bps: Some(10 << 20), read_iops: Some(7), ..DiskLimits::default() };
        assert_eq!(DiskLimits::current(after), seen);
        let Change::<NetworkLimits>(name, limits) = "eth0,tx-pps=5".parse().unwrap();
        assert_eq!((&*name, limits), ("eth0", NetworkLimits { tx_pps: Some(5), ..NetworkLimits::default() }));
        assert_eq!(limits.change(RateLimits::default()).from_guest.operations, NonZeroU64::new(5));
    }

    #[test]
    fn invalid_words_are_named() {
        for text in ["", "root", ",read-bps=1", "read-bps=1", "read-bps=1,read-iops=1"] {
            assert!(matches!(text.parse::<Change<DiskLimits>>(), Err(LimitsError::Form(_))), "{text}");
        }
        for text in ["root,", "root,ro", "root,rx-bps=1", "root,read-bps=1,", "root,path=x"] {
            assert!(matches!(text.parse::<Change<DiskLimits>>(), Err(LimitsError::Word(..))), "{text}");
        }
        for text in ["root,read-bps=", "root,read-bps=-1", "root,read-iops=1k", "root,read-bps=1,read-bps=2"] {
            assert!(matches!(text.parse::<Change<DiskLimits>>(), Err(LimitsError::Rate(_))), "{text}");
        }
        assert!("eth0,read-bps=1".parse::<Change<NetworkLimits>>().is_err());
    }
}
