// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The words of `--disk` and `--network` that limit what passes each second: `read-bps=10m`, `tx-pps=5000`.

use super::size::parse_bytes;
use devices::rate_limit::RateLimits;
use std::fmt;
use std::num::NonZeroU64;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RateError {
    #[error("more than one `{0}`")]
    Twice(&'static str),
    #[error("{0}={1}: expected bytes for each second, a positive size like 500k or 10m")]
    Bytes(&'static str, String),
    #[error("{0}={1}: expected a positive number for each second")]
    Operations(&'static str, String),
    #[error("{0}={1}: expected bytes for each second, a size like 500k or 10m, or 0 for no limit")]
    NewBytes(&'static str, String),
    #[error("{0}={1}: expected a number for each second, or 0 for no limit")]
    NewOperations(&'static str, String),
}

/// The words for bytes and operations to the guest, and from it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RateWords([&'static str; 4]);

/// Named after docker's `--device-read-bps` and the like.
pub(super) const DISK: RateWords = RateWords(["read-bps", "read-iops", "write-bps", "write-iops"]);
pub(super) const NETWORK: RateWords = RateWords(["rx-bps", "rx-pps", "tx-bps", "tx-pps"]);

impl RateWords {
    /// Stores the limit `key=value`. `false` if `key` is not one of these words.
    pub(super) fn parse(self, limits: &mut RateLimits, key: &str, value: &str) -> Result<bool, RateError> {
        let Some((word, limit)) = self.0.into_iter().zip(fields(limits)).find(|(word, _)| *word == key) else {
            return Ok(false);
        };
        let number = number(word, value).and_then(NonZeroU64::new);
        let invalid = if word.ends_with("bps") { RateError::Bytes } else { RateError::Operations };
        let number = number.ok_or_else(|| invalid(word, value.to_owned()))?;
        if limit.replace(number).is_some() { Err(RateError::Twice(word)) } else { Ok(true) }
    }

    /// Stores the change `key=value`, which may be 0. `false` if `key` is not one of these words.
    pub(super) fn parse_change(
        self,
        changes: &mut [Option<u64>; 4],
        key: &str,
        value: &str,
    ) -> Result<bool, RateError> {
        let Some((word, change)) = self.0.into_iter().zip(changes).find(|(word, _)| *word == key) else {
            return Ok(false);
        };
        let invalid = if word.ends_with("bps") { RateError::NewBytes } else { RateError::NewOperations };
        let number = number(word, value).ok_or_else(|| invalid(word, value.to_owned()))?;
        if change.replace(number).is_some() { Err(RateError::Twice(word)) } else { Ok(true) }
    }

    /// Writes the limits that there are, each behind a comma.
    pub(super) fn write(self, mut limits: RateLimits, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (word, limit) in self.0.into_iter().zip(fields(&mut limits)) {
            match limit {
                Some(bytes) if word.ends_with("bps") => {
                    write!(f, ",{word}=")?;
                    super::size::write_bytes(bytes.get(), f)?;
                }
                Some(number) => write!(f, ",{word}={number}")?,
                None => {}
            }
        }
        Ok(())
    }
}

/// Bytes have a suffix, operations have none.
fn number(word: &str, value: &str) -> Option<u64> {
    if word.ends_with("bps") {
        return parse_bytes(value).ok();
    }
    let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
    value.parse().ok().filter(|_| is_number)
}

/// `limits` with `changes`, in the order of the words: what is absent stays, 0 lifts a limit.
pub(super) fn change(mut limits: RateLimits, changes: [Option<u64>; 4]) -> RateLimits {
    for (limit, change) in fields(&mut limits).into_iter().zip(changes) {
        *limit = change.map_or(*limit, NonZeroU64::new);
    }
    limits
}

/// In the order of the words.
pub(super) fn numbers(mut limits: RateLimits) -> [Option<u64>; 4] {
    fields(&mut limits).map(|limit| limit.map(NonZeroU64::get))
}

/// In the order of the words.
fn fields(limits: &mut RateLimits) -> [&mut Option<NonZeroU64>; 4] {
    let RateLimits { to_guest, from_guest } = limits;
    [&mut to_guest.bytes, &mut to_guest.operations, &mut from_guest.bytes, &mut from_guest.operations]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn word_sets_its_limit_once() {
        let mut limits = RateLimits::default();
        assert_eq!(DISK.parse(&mut limits, "read-bps", "10m"), Ok(true));
        assert_eq!(DISK.parse(&mut limits, "write-iops", "500"), Ok(true));
        assert_eq!(DISK.parse(&mut limits, "rx-bps", "10m"), Ok(false));
        assert_eq!((limits.to_guest.bytes, limits.to_guest.operations), (NonZeroU64::new(10 << 20), None));
        assert_eq!((limits.from_guest.bytes, limits.from_guest.operations), (None, NonZeroU64::new(500)));
        assert_eq!(DISK.parse(&mut limits, "read-bps", "1"), Err(RateError::Twice("read-bps")));
    }

    #[test]
    fn limit_is_positive() {
        for (key, value) in [
            ("rx-bps", "0"),
            ("rx-bps", ""),
            ("tx-bps", "fast"),
            ("rx-pps", "0"),
            ("tx-pps", "1k"),
            ("tx-pps", "+1"),
            ("tx-pps", ""),
        ] {
            let error = NETWORK.parse(&mut RateLimits::default(), key, value).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{key}={value}: ")), "{error}");
        }
    }
}
