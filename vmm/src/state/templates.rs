// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The templates of this user: directories in the cache, named after what their machines have in common. One that is being made has
//! another name and is locked (flock) by its maker, so that what a killed maker left is told from what one still writes.

use crate::host::directories::{Directories, DirectoryError};
use rustix::fs::{AtFlags, CWD, FlockOperation, RenameFlags, Timespec, Timestamps, UTIME_NOW, flock, renameat_with};
use rustix::io::{Errno, retry_on_intr};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Space of all templates; those that were not used for longest give way.
pub(crate) const MAX_BYTES: u64 = 2 << 30;
/// Extension of one that is being made.
const PARTIAL: &str = "partial";
/// A killed maker's directory is replaced by the next; more often only if makers are killed one after the other.
const MAX_TRIES: usize = 8;

#[derive(Debug, thiserror::Error)]
pub(crate) enum TemplateError {
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error("cannot {verb} {path}")]
    File { verb: &'static str, path: PathBuf, source: io::Error },
    #[error("no template {0}")]
    Missing(String),
}

/// The directory of templates; it need not exist.
#[derive(Debug)]
pub(crate) struct Templates {
    directory: PathBuf,
}

#[derive(Debug)]
pub(crate) struct StoredTemplate {
    pub(crate) key: String,
    pub(crate) path: PathBuf,
    /// Space on the host.
    pub(crate) bytes: u64,
    /// When a machine last started from it, or it was made.
    pub(crate) used: SystemTime,
}

/// Whether a template is to be made.
#[derive(Debug)]
pub(crate) enum Begun {
    Exists,
    /// Another process makes it.
    Elsewhere,
    New(PartialTemplate),
}

/// A template that is being made, removed unless it is published.
#[derive(Debug)]
pub(crate) struct PartialTemplate {
    path: PathBuf,
    published: PathBuf,
    _lock: File,
}

impl Templates {
    /// # Errors
    /// The user has no cache.
    pub(crate) fn of(directories: &Directories) -> Result<Self, DirectoryError> {
        Ok(Self { directory: directories.cache()?.join("templates") })
    }

    #[cfg(test)]
    pub(super) fn at(directory: PathBuf) -> Self {
        Self { directory }
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn path(&self, key: &str) -> PathBuf {
        self.directory.join(key)
    }

    /// Begins to make the template `key`. With `waits` it waits for another process that makes it.
    ///
    /// # Errors
    /// The cache cannot be written.
    pub(crate) fn begin(&self, key: &str, waits: bool) -> Result<Begun, TemplateError> {
        let (path, published) = (self.directory.join(format!("{key}.{PARTIAL}")), self.path(key));
        let failed = |verb| {
            let path = path.clone();
            move |source| TemplateError::File { verb, path, source }
        };
        for _ in 0..MAX_TRIES {
            if published.exists() {
                return Ok(Begun::Exists);
            }
            DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(failed("make"))?;
            let directory = match File::open(&path) {
                // It was published or removed.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                opened => opened.map_err(failed("open"))?,
            };
            let kind = if waits { FlockOperation::LockExclusive } else { FlockOperation::NonBlockingLockExclusive };
            match retry_on_intr(|| flock(&directory, kind)) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Ok(Begun::Elsewhere),
                Err(error) => return Err(failed("lock")(error.into())),
            }
            if !is_at(&directory, &path) {
                continue;
            }
            let partial = PartialTemplate { path, published, _lock: directory };
            partial.clear()?;
            return Ok(Begun::New(partial));
        }
        Ok(Begun::Elsewhere)
    }

    /// A machine starts from the template `key`.
    pub(crate) fn mark_used(&self, key: &str) {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        // On a cache that cannot be written nothing is pruned either.
        let _ = rustix::fs::utimensat(CWD, self.path(key), &times, AtFlags::SYMLINK_NOFOLLOW);
    }

    /// All templates, those that were used last first.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(crate) fn list(&self) -> Result<Vec<StoredTemplate>, TemplateError> {
        let mut templates: Vec<_> = self.entries()?.into_iter().filter_map(describe).collect();
        templates.sort_by(|one, other| other.used.cmp(&one.used).then_with(|| one.key.cmp(&other.key)));
        Ok(templates)
    }

    /// Removes a template; machines that started from it keep what they have mapped. Returns the space that it took.
    ///
    /// # Errors
    /// It is missing, or the directory cannot be written.
    pub(crate) fn remove(&self, key: &str) -> Result<u64, TemplateError> {
        let path = self.path(key);
        // Not a path that leads to another directory with such a name.
        let template = describe(path.clone()).filter(|template| template.key == key);
        let template = template.ok_or_else(|| TemplateError::Missing(key.to_owned()))?;
        fs::remove_dir_all(&path).map_err(|source| TemplateError::File { verb: "remove", path, source })?;
        Ok(template.bytes)
    }

    /// Removes what killed makers left. Returns the space that it took.
    ///
    /// # Errors
    /// The directory cannot be read or written.
    pub(crate) fn remove_left(&self) -> Result<u64, TemplateError> {
        let mut bytes = 0;
        for path in self.entries()? {
            let is_left = || {
                let directory = File::open(&path).ok()?;
                flock(&directory, FlockOperation::NonBlockingLockExclusive).ok()?;
                is_at(&directory, &path).then_some(directory)
            };
            if path.extension().is_some_and(|extension| extension == PARTIAL)
                && let Some(_locked) = is_left()
            {
                bytes += size(&path);
                fs::remove_dir_all(&path).map_err(|source| TemplateError::File { verb: "remove", path, source })?;
            }
        }
        Ok(bytes)
    }

    /// Removes templates beyond `max` bytes, those first that were not used for longest, but not `key`.
    ///
    /// # Errors
    /// The directory cannot be read or written.
    pub(crate) fn bound(&self, max: u64, key: &str) -> Result<(), TemplateError> {
        let templates = self.list()?;
        let mut bytes: u64 = templates.iter().map(|template| template.bytes).sum();
        for template in templates.iter().rev().filter(|template| template.key != key) {
            if bytes <= max {
                break;
            }
            match self.remove(&template.key) {
                Ok(_) | Err(TemplateError::Missing(_)) => bytes -= template.bytes,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(super) fn entries(&self) -> Result<Vec<PathBuf>, TemplateError> {
        let failed = |source| TemplateError::File { verb: "read", path: self.directory.clone(), source };
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        entries.map(|entry| Ok(entry.map_err(failed)?.path())).collect()
    }
}

impl PartialTemplate {
    /// Creates a file of the template.
    ///
    /// # Errors
    /// The cache cannot be written.
    pub(crate) fn file(&self, name: &str) -> Result<File, TemplateError> {
        let path = self.path.join(name);
        let created = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        created.map_err(|source| TemplateError::File { verb: "make", path, source })
    }

    /// Gives the template its name. Its files are complete.
    ///
    /// # Errors
    /// The cache cannot be written.
    pub(crate) fn publish(self) -> Result<(), TemplateError> {
        let renamed = renameat_with(CWD, &self.path, CWD, &self.published, RenameFlags::NOREPLACE);
        renamed.map_err(|error| TemplateError::File {
            verb: "make",
            path: self.published.clone(),
            source: error.into(),
        })
    }

    /// Removes the files of a killed maker.
    fn clear(&self) -> Result<(), TemplateError> {
        let failed = |source| TemplateError::File { verb: "empty", path: self.path.clone(), source };
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            fs::remove_file(entry.map_err(failed)?.path()).map_err(failed)?;
        }
        Ok(())
    }
}

impl Drop for PartialTemplate {
    fn drop(&mut self) {
        // It is gone after it was renamed.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Whether the open `directory` still has this path.
fn is_at(directory: &File, path: &Path) -> bool {
    let identity = |metadata: io::Result<fs::Metadata>| metadata.ok().map(|data| (data.dev(), data.ino()));
    let opened = identity(directory.metadata());
    opened.is_some() && opened == identity(fs::symlink_metadata(path))
}

fn describe(path: PathBuf) -> Option<StoredTemplate> {
    let key = path.file_name()?.to_str()?.to_owned();
    let metadata = fs::symlink_metadata(&path).ok()?;
    (is_key(&key) && metadata.is_dir()).then(|| StoredTemplate {
        key,
        bytes: size(&path),
        used: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
        path,
    })
}

pub(super) fn is_key(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Space of the files in `directory`.
fn size(directory: &Path) -> u64 {
    let blocks = |entry: io::Result<fs::DirEntry>| Some(entry.ok()?.metadata().ok()?.blocks() * 512);
    fs::read_dir(directory).into_iter().flatten().filter_map(blocks).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    const KEYS: [&str; 3] = ["0a", "0b", "0c"];

    fn templates() -> (tempfile::TempDir, Templates) {
        let directory = tempfile::tempdir().unwrap();
        let templates = Templates::at(directory.path().join("coracle/templates"));
        (directory, templates)
    }

    fn begin(templates: &Templates, key: &str) -> PartialTemplate {
        match templates.begin(key, false).unwrap() {
            Begun::New(partial) => partial,
            other => panic!("{other:?}"),
        }
    }

    fn make(templates: &Templates, key: &str) {
        let partial = begin(templates, key);
        partial.file("memory").unwrap().write_all(&[1; 1 << 20]).unwrap();
        partial.publish().unwrap();
    }

    fn keys(templates: &Templates) -> Vec<String> {
        let mut keys: Vec<_> = templates.list().unwrap().into_iter().map(|template| template.key).collect();
        keys.sort();
        keys
    }

    #[test]
    fn template_appears_whole_and_once() {
        let (_directory, templates) = templates();
        assert!(keys(&templates).is_empty());
        let partial = begin(&templates, KEYS[0]);
        assert!(matches!(templates.begin(KEYS[0], false), Ok(Begun::Elsewhere)));
        assert_eq!((keys(&templates).len(), templates.remove_left().unwrap()), (0, 0));
        partial.publish().unwrap();
        assert!(matches!(templates.begin(KEYS[0], true), Ok(Begun::Exists)));
        assert_eq!(keys(&templates), [KEYS[0]]);
        templates.remove(KEYS[0]).unwrap();
        assert!(matches!(templates.remove(KEYS[0]), Err(TemplateError::Missing(_))));
    }

    #[test]
    fn only_a_template_is_removed() {
        let (directory, templates) = templates();
        make(&templates, KEYS[0]);
        let other = directory.path().join("abc");
        fs::create_dir(&other).unwrap();
        for key in ["../../abc", other.to_str().unwrap(), "../templates/0a", "./0a", "0a/", "", ".", "abc"] {
            assert!(matches!(templates.remove(key), Err(TemplateError::Missing(_))), "{key}");
        }
        assert!(other.exists());
        assert_eq!(keys(&templates), [KEYS[0]]);
    }

    #[test]
    fn second_maker_waits_for_the_first() {
        let (_directory, templates) = templates();
        let partial = begin(&templates, KEYS[0]);
        std::thread::scope(|scope| {
            let second = scope.spawn(|| templates.begin(KEYS[0], true).unwrap());
            partial.publish().unwrap();
            assert!(matches!(second.join().unwrap(), Begun::Exists));
        });
    }

    #[test]
    fn what_a_killed_maker_left_is_replaced_or_removed() {
        let (_directory, templates) = templates();
        let left = |key: &str| {
            let directory = templates.directory.join(format!("{key}.partial"));
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("memory"), [1; 1 << 16]).unwrap();
        };
        left(KEYS[0]);
        make(&templates, KEYS[0]);
        left(KEYS[1]);
        assert!(templates.remove_left().unwrap() >= 1 << 16);
        assert_eq!(keys(&templates), [KEYS[0]]);
        drop(begin(&templates, KEYS[1]));
        assert_eq!(fs::read_dir(&templates.directory).unwrap().count(), 1);
    }

    #[test]
    fn templates_beyond_the_bound_give_way_by_last_use() {
        let (_directory, templates) = templates();
        for (seconds, key) in (1..).zip(KEYS) {
            make(&templates, key);
            let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
            let times = Timestamps { last_access: time, last_modification: time };
            rustix::fs::utimensat(CWD, templates.path(key), &times, AtFlags::empty()).unwrap();
        }
        templates.mark_used(KEYS[0]);
        templates.bound(5 << 19, KEYS[2]).unwrap();
        assert_eq!(keys(&templates), [KEYS[0], KEYS[2]]);
        templates.bound(0, KEYS[2]).unwrap();
        assert_eq!(keys(&templates), [KEYS[2]]);
    }
}
