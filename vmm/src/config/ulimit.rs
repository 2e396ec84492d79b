// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--ulimit NAME=SOFT[:HARD]`: a resource limit of the workload, in docker's form.

use super::text_form::text_form;
use guest_protocol::attributes::ResourceLimit;
use std::fmt;
use std::str::FromStr;

/// As docker writes it.
const UNLIMITED: &str = "-1";

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UlimitError {
    #[error("expected NAME=SOFT[:HARD] with numbers, -1 for unlimited (nofile=1024:4096)")]
    Form,
    #[error("unknown limit `{0}`; there are {known}", known = ResourceLimit::NAMES.join(", "))]
    Name(String),
    #[error("the soft limit is above the hard limit")]
    Order,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ulimit(pub(crate) ResourceLimit);

impl Ulimit {
    /// The limit of the resource `name`, as in [`ResourceLimit::NAMES`].
    pub(crate) fn new(name: &str, soft: Option<u64>, hard: Option<u64>) -> Result<Self, UlimitError> {
        let number = ResourceLimit::NAMES.iter().position(|other| *other == name);
        let number = number.ok_or_else(|| UlimitError::Name(name.to_owned()))?;
        if soft.unwrap_or(u64::MAX) > hard.unwrap_or(u64::MAX) {
            return Err(UlimitError::Order);
        }
        Ok(Self(ResourceLimit { resource: u8::try_from(number).expect("there are 16"), soft, hard }))
    }
}

impl FromStr for Ulimit {
    type Err = UlimitError;

    fn from_str(text: &str) -> Result<Self, UlimitError> {
        let (name, limits) = text.split_once('=').ok_or(UlimitError::Form)?;
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        let limit = |text: &str| match text {
            UNLIMITED => Ok(None),
            text => text.parse().map(Some).map_err(|_| UlimitError::Form),
        };
        Self::new(name, limit(soft)?, limit(hard)?)
    }
}

impl fmt::Display for Ulimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = |limit: Option<u64>| limit.map_or_else(|| UNLIMITED.to_owned(), |limit| limit.to_string());
        let Self(ResourceLimit { resource, soft, hard }) = *self;
        write!(f, "{}={}:{}", ResourceLimit::NAMES[usize::from(resource)], limit(soft), limit(hard))
    }
}

text_form!(Ulimit);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_str_reads_dockers_forms() {
        for (text, shown) in [
            ("nofile=1024:4096", "nofile=1024:4096"),
            ("nproc=5", "nproc=5:5"),
            ("core=0:-1", "core=0:-1"),
            ("stack=-1", "stack=-1:-1"),
        ] {
            assert_eq!(text.parse::<Ulimit>().unwrap().to_string(), shown);
        }
        for (text, error) in [
            ("", UlimitError::Form),
            ("nofile", UlimitError::Form),
            ("nofile=", UlimitError::Form),
            ("nofile=1:", UlimitError::Form),
            ("nofile=1:2:3", UlimitError::Form),
            ("nofile=-2", UlimitError::Form),
            ("nofile=18446744073709551616", UlimitError::Form),
            ("NOFILE=1", UlimitError::Name("NOFILE".to_owned())),
            ("nofile=2:1", UlimitError::Order),
            ("nofile=-1:1", UlimitError::Order),
        ] {
            assert_eq!(text.parse::<Ulimit>(), Err(error), "{text:?}");
        }
    }
}
