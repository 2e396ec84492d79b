// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Templates that could not be made: a file `KEY.failed` each, beside the [templates](super::templates), so that not every start tries
//! again. It ends after [`MAX_AGE`], with a template of the key, or with `template rm`.

use super::templates::{TemplateError, Templates, is_key};
use crate::config::rfc3339;
use crate::host::bounded_read;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The cause may have been the host's, such as a full disk.
pub(crate) const MAX_AGE: Duration = Duration::from_secs(60 * 60);
const EXTENSION: &str = "failed";
/// The reason is a line; an image's name is bounded.
const MAX_BYTES: u64 = 64 << 10;

/// A template that is missing because it could not be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TemplateFailure {
    pub(crate) key: String,
    #[serde(with = "rfc3339")]
    pub(crate) time: SystemTime,
    /// What the image is called, if it was to be of one.
    pub(crate) image: Option<String>,
    pub(crate) is_of_image: bool,
    pub(crate) reason: String,
}

impl TemplateFailure {
    /// Whether it is too old to count; or the clock was set back, and it would count for too long.
    fn has_ended(&self) -> bool {
        SystemTime::now().duration_since(self.time).map_or(true, |age| age > MAX_AGE)
    }
}

impl Templates {
    fn failure_path(&self, key: &str) -> PathBuf {
        self.path(key).with_extension(EXTENSION)
    }

    /// Remembers that a template could not be made.
    ///
    /// # Errors
    /// The cache cannot be written.
    pub(crate) fn set_failure(&self, failure: &TemplateFailure) -> Result<(), TemplateError> {
        let path = self.failure_path(&failure.key);
        let write = || {
            DirBuilder::new().recursive(true).mode(0o700).create(self.directory())?;
            // A part of a failure is none.
            fs::write(&path, serde_json::to_vec(failure)?)
        };
        write().map_err(|source| TemplateError::File { verb: "write", path: path.clone(), source })
    }

    /// Why the template `key` could not be made, if that is known and no longer ago than [`MAX_AGE`].
    #[must_use]
    pub(crate) fn failure(&self, key: &str) -> Option<TemplateFailure> {
        read(&self.failure_path(key)).filter(|failure| failure.key == key && !failure.has_ended())
    }

    /// All failures that count, by key.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(crate) fn failures(&self) -> Result<Vec<TemplateFailure>, TemplateError> {
        let keys = self.failed_keys()?;
        Ok(keys.iter().filter_map(|key| self.failure(key)).collect())
    }

    /// Forgets that the template `key` could not be made. Returns whether that was known.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub(crate) fn forget_failure(&self, key: &str) -> Result<bool, TemplateError> {
        if !is_key(key) {
            return Ok(false);
        }
        let path = self.failure_path(key);
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(source) => Err(TemplateError::File { verb: "remove", path, source }),
        }
    }

    /// Removes the failures that do not count any more, or `all`.
    ///
    /// # Errors
    /// The directory cannot be read or written.
    pub(crate) fn forget_failures(&self, all: bool) -> Result<(), TemplateError> {
        for key in self.failed_keys()? {
            if all || self.failure(&key).is_none() {
                self.forget_failure(&key)?;
            }
        }
        Ok(())
    }

    fn failed_keys(&self) -> Result<Vec<String>, TemplateError> {
        let key = |path: PathBuf| {
            let is_failure = path.extension().is_some_and(|extension| extension == EXTENSION);
            path.file_stem()?.to_str().filter(|key| is_failure && is_key(key)).map(str::to_owned)
        };
        let mut keys: Vec<_> = self.entries()?.into_iter().filter_map(key).collect();
        keys.sort();
        Ok(keys)
    }
}

fn read(path: &Path) -> Option<TemplateFailure> {
    let bytes = bounded_read::read_file(path, MAX_BYTES).ok()??;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 3] = ["0a", "0b", "0c"];

    fn failure(key: &str, age: i64) -> TemplateFailure {
        let (now, seconds) = (SystemTime::now(), Duration::from_secs(age.unsigned_abs()));
        TemplateFailure {
            key: key.into(),
            time: if age < 0 { now + seconds } else { now - seconds },
            image: None,
            is_of_image: false,
            reason: "no space".into(),
        }
    }

    #[test]
    fn failure_counts_for_a_bounded_time_or_until_it_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let templates = Templates::at(directory.path().join("templates"));
        assert_eq!((templates.failure(KEYS[0]), templates.failures().unwrap().len()), (None, 0));
        for (key, age) in KEYS.into_iter().zip([10, 3700, -60]) {
            templates.set_failure(&failure(key, age)).unwrap();
        }
        let known = templates.failures().unwrap();
        assert_eq!((known.len(), &*known[0].key, &*known[0].reason), (1, KEYS[0], "no space"));
        assert_eq!((templates.failure(KEYS[1]), templates.failure(KEYS[2])), (None, None));
        assert!(templates.list().unwrap().is_empty());
        let files = || fs::read_dir(directory.path().join("templates")).unwrap().count();
        templates.forget_failures(false).unwrap();
        assert_eq!(files(), 1);
        assert!(templates.forget_failure(KEYS[0]).unwrap() && !templates.forget_failure(KEYS[0]).unwrap());
        assert_eq!(templates.failure(KEYS[0]), None);
        let other = directory.path().join("abc.failed");
        fs::write(&other, "").unwrap();
        assert!(!templates.forget_failure("../abc").unwrap() && other.exists());
    }

    #[test]
    fn damaged_or_foreign_failure_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let templates = Templates::at(directory.path().to_owned());
        templates.set_failure(&failure(KEYS[0], 1)).unwrap();
        fs::rename(templates.failure_path(KEYS[0]), templates.failure_path(KEYS[1])).unwrap();
        fs::write(templates.failure_path(KEYS[0]), "{").unwrap();
        assert!(templates.failures().unwrap().is_empty());
        templates.forget_failures(true).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
