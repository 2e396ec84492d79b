// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The file of settings: engines clear the environment of a runtime. A container's annotations override it.

use super::error::{DocumentError, OciError};
use super::json;
use crate::config::cpus::CpuCount;
use crate::config::size::MemorySize;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub(super) const PATH: &str = "/etc/coracle/oci.json";
const PREFIX: &str = "io.coracle.";

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Settings {
    /// The runtime that everything else is left to.
    pub(super) delegate: Option<PathBuf>,
    /// Of a container without a memory limit.
    pub(super) memory: Option<MemorySize>,
    /// Of a container without a CPU quota.
    pub(super) cpus: Option<CpuCount>,
}

impl Settings {
    /// A missing file has no settings.
    pub(super) fn read(path: &Path) -> Result<Self, OciError> {
        match json::read_bytes(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|source| OciError::Json { path: path.into(), source }),
            Err(OciError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }
}

/// What a container's annotations decide.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Annotated {
    pub(super) memory: Option<MemorySize>,
    pub(super) cpus: Option<CpuCount>,
}

impl Annotated {
    pub(super) fn of(annotations: Option<&Map<String, Value>>) -> Result<Self, DocumentError> {
        let mut annotated = Self::default();
        for (name, value) in annotations.into_iter().flatten() {
            let Some(option) = name.strip_prefix(PREFIX) else { continue };
            let text = value.as_str().ok_or(DocumentError::Field("annotations", "an object of strings"))?;
            match option {
                "memory" => annotated.memory = Some(parse("io.coracle.memory", text)?),
                "cpus" => annotated.cpus = Some(parse("io.coracle.cpus", text)?),
                _ => return Err(DocumentError::Annotation(name.clone())),
            }
        }
        Ok(annotated)
    }
}

/// A value of one of `run`'s options.
pub(super) fn parse<T: FromStr<Err: Display>>(name: &'static str, text: &str) -> Result<T, DocumentError> {
    text.parse().map_err(|error: T::Err| DocumentError::Value(name, text.to_owned(), error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_unknown_ones_rejected() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("oci.json");
        assert_eq!(Settings::read(&path).unwrap(), Settings::default());
        std::fs::write(&path, r#"{"delegate":"/x/runc","memory":"1g","cpus":2}"#).unwrap();
        let settings = Settings::read(&path).unwrap();
        assert_eq!((settings.delegate, settings.cpus.map(CpuCount::get)), (Some("/x/runc".into()), Some(2)));
        for text in ["", "[", r#"{"runtime":"x"}"#, r#"{"memory":"1m"}"#] {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(Settings::read(&path), Err(OciError::Json { .. })), "{text}");
        }
    }
}
