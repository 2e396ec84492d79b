// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--cpus NUMBER`.

use boot::layout::MAX_CPUS;
use serde::{Deserialize, Serialize};
use std::str::FromStr;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CpuCountError {
    /// In docker a fraction limits CPU time.
    #[error("fractional CPUs are not supported")]
    Fraction,
    #[error("expected 1 to {MAX_CPUS} CPUs, found `{0}`")]
    Range(String),
}

/// 1 to [`MAX_CPUS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub(crate) struct CpuCount(u8);

impl CpuCount {
    #[must_use]
    pub(crate) fn get(self) -> u8 {
        self.0
    }
}

impl Default for CpuCount {
    fn default() -> Self {
        Self(1)
    }
}

impl TryFrom<u64> for CpuCount {
    type Error = CpuCountError;

    fn try_from(number: u64) -> Result<Self, CpuCountError> {
        match u8::try_from(number) {
            Ok(count @ 1..=MAX_CPUS) => Ok(Self(count)),
            _ => Err(CpuCountError::Range(number.to_string())),
        }
    }
}

impl From<CpuCount> for u64 {
    fn from(count: CpuCount) -> Self {
        count.0.into()
    }
}

impl FromStr for CpuCount {
    type Err = CpuCountError;

    fn from_str(text: &str) -> Result<Self, CpuCountError> {
        match text.parse::<u64>() {
            Ok(number) => number.try_into(),
            Err(_) if text.parse::<f64>().is_ok_and(|number| number.fract() != 0.0 && number.is_finite()) => {
                Err(CpuCountError::Fraction)
            }
            // Scripts write 2 as `2.0`.
            Err(_) => match text.strip_suffix(".0").map(str::parse::<u64>) {
                Some(Ok(number)) => Self::try_from(number),
                _ => Err(CpuCountError::Range(text.to_owned())),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_str_accepts_1_to_the_maximum() {
        for (text, count) in [("1", 1), ("2", 2), ("2.0", 2), ("32", MAX_CPUS)] {
            assert_eq!(text.parse(), Ok(CpuCount(count)), "{text}");
        }
    }

    #[test]
    fn from_str_rejects_fractions_and_other_numbers() {
        for text in ["1.5", "0.5", "-0.5"] {
            assert_eq!(text.parse::<CpuCount>(), Err(CpuCountError::Fraction), "{text}");
        }
        for text in ["0", "33", "-1", "many", "", "1e400", "NaN", "256"] {
            assert_eq!(text.parse::<CpuCount>(), Err(CpuCountError::Range(text.into())), "{text}");
        }
    }
}
