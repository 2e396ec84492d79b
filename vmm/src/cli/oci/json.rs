// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Documents of engines: bounded in size, and in depth by the parser (128).

use super::error::{DocumentError, OciError};
use crate::host::bounded_read;
use serde_json::{Map, Value};
use std::path::Path;

pub(super) const MAX_BYTES: u64 = 16 << 20;

pub(super) fn read_bytes(path: &Path) -> Result<Vec<u8>, OciError> {
    let read = |source| OciError::Read { path: path.to_owned(), source };
    let too_large = || OciError::TooLarge { path: path.to_owned() };
    bounded_read::read_file(path, MAX_BYTES).map_err(read)?.ok_or_else(too_large)
}

pub(super) fn read(path: &Path) -> Result<Value, OciError> {
    parse(&read_bytes(path)?, path)
}

/// Parses the contents of `path`.
pub(super) fn parse(bytes: &[u8], path: &Path) -> Result<Value, OciError> {
    serde_json::from_slice(bytes).map_err(|source| OciError::Json { path: path.to_owned(), source })
}

/// The object at `key`, which is made if it is missing.
pub(super) fn object<'a>(
    parent: &'a mut Map<String, Value>,
    key: &'static str,
) -> Result<&'a mut Map<String, Value>, DocumentError> {
    let value = parent.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().ok_or(DocumentError::Field(key, "an object"))
}

/// The array at `key`, which is made if it is missing.
pub(super) fn array<'a>(
    parent: &'a mut Map<String, Value>,
    key: &'static str,
) -> Result<&'a mut Vec<Value>, DocumentError> {
    let value = parent.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Array(Vec::new());
    }
    value.as_array_mut().ok_or(DocumentError::Field(key, "an array"))
}

/// The strings of the array at `key`; none if it is missing.
pub(super) fn strings(parent: &Map<String, Value>, key: &'static str) -> Result<Vec<String>, DocumentError> {
    let error = || DocumentError::Field(key, "an array of strings");
    let values = match parent.get(key) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(values) => values.as_array().ok_or_else(error)?,
    };
    values.iter().map(|value| value.as_str().map(str::to_owned).ok_or_else(error)).collect()
}
