// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The configuration document: a [`Request`] as one JSON object with a version. Unknown and repeated keys are
//! rejected.

use super::request::Request;
use crate::host::bounded_read;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// The only version that is read and written.
pub(crate) const VERSION: u32 = 1;
const MAX_DOCUMENT_BYTES: u64 = 32 << 20;

#[derive(Debug, thiserror::Error)]
pub(crate) enum DocumentError {
    #[error("cannot read configuration {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("configuration {path} has more than {} MiB", MAX_DOCUMENT_BYTES >> 20)]
    TooLarge { path: PathBuf },
    #[error("configuration {0} is not a JSON object")]
    NotAnObject(PathBuf),
    #[error("configuration {path} has {}; this coracle reads version {VERSION}", match version {
        Some(version) => format!("version {version}"),
        None => "no version".to_owned(),
    })]
    Version { path: PathBuf, version: Option<Value> },
    /// A key or a value that does not belong there.
    #[error("configuration {path}")]
    Content { path: PathBuf, source: serde_json::Error },
}

/// An option that JSON cannot hold.
#[derive(Debug, thiserror::Error)]
#[error("an option is not UTF-8 text")]
pub(crate) struct NotTextError(#[source] serde_json::Error);

/// What every version of the document has.
#[derive(Deserialize)]
struct Header {
    #[serde(default)]
    version: Option<Value>,
}

impl Request {
    /// Reads the document at `path`; `-` is standard input.
    pub(crate) fn read(path: &Path) -> Result<Self, DocumentError> {
        let read = |source| DocumentError::Read { path: path.to_owned(), source };
        let bytes = match path.as_os_str() == "-" {
            true => bounded_read::read(std::io::stdin(), MAX_DOCUMENT_BYTES),
            false => bounded_read::read_file(path, MAX_DOCUMENT_BYTES),
        };
        let too_large = || DocumentError::TooLarge { path: path.to_owned() };
        Self::parse(&bytes.map_err(read)?.ok_or_else(too_large)?, path)
    }

    /// Parses a document that was read from `path`.
    pub(crate) fn parse(bytes: &[u8], path: &Path) -> Result<Self, DocumentError> {
        // serde would accept a list with the right values in the right order.
        if !bytes.trim_ascii_start().starts_with(b"{") {
            return Err(DocumentError::NotAnObject(path.to_owned()));
        }
        let content = |source| DocumentError::Content { path: path.to_owned(), source };
        // The version first: a document of another version may differ in anything.
        let header: Header = serde_json::from_slice(bytes).map_err(content)?;
        match header.version {
            Some(version) if version == VERSION => {}
            version => return Err(DocumentError::Version { path: path.to_owned(), version }),
        }
        serde_json::from_slice(bytes).map_err(content)
    }

    /// This request without options whose value is empty.
    #[must_use]
    pub(crate) fn without_empty(self) -> Self {
        self.overridden_by(&Self::default()).unwrap_or(self)
    }

    /// This request with `options` in place of its own; lists are appended to.
    pub(crate) fn overridden_by(&self, options: &Self) -> Result<Self, NotTextError> {
        let mut merged = self.to_map()?;
        for (key, value) in options.to_map()? {
            match (merged.get_mut(&key), value) {
                (Some(Value::Array(list)), Value::Array(more)) => list.extend(more),
                (_, value) => drop(merged.insert(key, value)),
            }
        }
        serde_json::from_value(merged.into()).map_err(NotTextError)
    }

    pub(crate) fn to_document(&self) -> Result<String, NotTextError> {
        let mut map = Map::from_iter([("version".to_owned(), VERSION.into())]);
        map.extend(self.to_map()?);
        Ok(serde_json::to_string_pretty(&map).expect("a map of JSON values is JSON"))
    }

    /// The options that were given, without the version.
    fn to_map(&self) -> Result<Map<String, Value>, NotTextError> {
        let Value::Object(mut map) = serde_json::to_value(self).map_err(NotTextError)? else {
            unreachable!("a request is an object")
        };
        map.remove("version");
        map.retain(|key, value| match value {
            Value::Null | Value::Bool(false) => false,
            Value::Array(list) => !list.is_empty(),
            // An empty --entrypoint removes the image's; any other empty value is as if it were not given.
            Value::String(text) => !text.is_empty() || key == "entrypoint",
            _ => true,
        });
        Ok(map)
    }
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
