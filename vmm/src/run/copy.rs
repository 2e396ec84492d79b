// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Copies files out of a machine, by docker's rules: the source is copied into a directory that is there, and else
//! gets the name of the destination. `DIR/.` is what is in the directory.

use super::failure::{FailsAs as _, Failure, print_error};
use super::host_directory::{HostDirectory, LeftOut};
use super::machine_files;
use crate::host::system_error::Cannot as _;
use crate::state::end::EndReason;
use crate::state::machines::MachineInfo;
use oci_image::{FileKind, Location, MachineTree, TarWriter};
use std::ffi::OsStr;
use std::fs;
use std::io::{BufWriter, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

const WRITE_BUF_SIZE: usize = 256 << 10;

#[derive(Debug, thiserror::Error)]
enum CopyError {
    #[error("{0}: no such directory")]
    NoDirectory(PathBuf),
    #[error("{0} is not a directory, and the source is one")]
    NotADirectory(PathBuf),
    #[error("{0}: only files, directories and symbolic links are copied to the host")]
    Special(String),
    #[error("{0}: a socket cannot be in an archive")]
    Socket(String),
}

/// Files of one path, to be copied.
pub(crate) struct Copied {
    tree: MachineTree,
    location: Location,
    /// Not the directory, only what is in it.
    is_content: bool,
    machine: MachineInfo,
    /// As given, for messages.
    source: String,
}

/// Where it goes on the host: a directory that is there, and the name in it; empty for the directory itself.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    directory: PathBuf,
    name: Vec<u8>,
}

impl Copied {
    /// Finds `path` of `machine`; a symbolic link at its end is copied as one unless `follows_link`.
    pub(crate) fn find(base: &Path, machine: MachineInfo, path: &[u8], follows_link: bool) -> Result<Self, Failure> {
        let tree = machine_files::open(base, &machine, false)?.tree;
        let is_content = path == b"." || path.ends_with(b"/.");
        let location = tree.find_path(path, follows_link).map_err(|error| machine_files::failed(&machine, error))?;
        let source = format!("{}:{}", machine.name, String::from_utf8_lossy(path));
        Ok(Self { tree, location, is_content, machine, source })
    }

    fn failed(&self, error: impl FnOnce(String) -> CopyError) -> Failure {
        Failure::new(EndReason::ConfigError, error(self.source.clone()))
    }

    /// Writes it as a tar archive, with its last name.
    pub(crate) fn to_archive(&self, output: impl Write) -> Result<(), Failure> {
        if self.location.kind() == FileKind::Socket {
            return Err(self.failed(CopyError::Socket));
        }
        let mut tar = TarWriter::new(BufWriter::with_capacity(WRITE_BUF_SIZE, output));
        let name = if self.is_content { b"." } else { self.location.name().unwrap_or(b".") };
        let copied = self.tree.copy(&self.location, name, &mut tar);
        let written = copied.and_then(|()| Ok(tar.finish()?));
        written.map(drop).map_err(|error| machine_files::failed(&self.machine, error))
    }

    /// Writes it to `destination` on the host.
    pub(crate) fn to_host(&self, destination: &Path) -> Result<(), Failure> {
        let kind = self.location.kind();
        if !matches!(kind, FileKind::Regular | FileKind::Directory | FileKind::Symlink) {
            return Err(self.failed(CopyError::Special));
        }
        let is_directory = kind == FileKind::Directory;
        let contents = self.is_content || self.location.name().is_none();
        let Target { directory, name } = target(destination, is_directory, contents, self.location.name())?;
        let opened = HostDirectory::open(&directory);
        let mut files = opened.cannot(format!("open {}", directory.display())).fails_as(EndReason::HostError)?;
        let copied = self.tree.copy(&self.location, &name, &mut files);
        let left_out =
            copied.and_then(|()| Ok(files.finish()?)).map_err(|error| machine_files::failed(&self.machine, error))?;
        if let Some(LeftOut { first, count }) = left_out {
            let first = directory.join(first);
            print_error(&format!("{}: devices and FIFOs are not copied ({count})", first.display()));
        }
        Ok(())
    }
}

/// Decides where a source goes that is a directory or not, of which only what is in it is copied if `contents`.
fn target(destination: &Path, is_directory: bool, contents: bool, name: Option<&[u8]>) -> Result<Target, Failure> {
    let failed = |error: CopyError| Failure::new(EndReason::ConfigError, error);
    let ends_in_slash = destination.as_os_str().as_bytes().ends_with(b"/");
    let there = match fs::metadata(destination) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        there => Some(there.cannot(format!("open {}", destination.display())).fails_as(EndReason::HostError)?.is_dir()),
    };
    match there {
        Some(true) => {
            let name = name.filter(|_| !contents).unwrap_or_default().to_vec();
            return Ok(Target { directory: destination.to_owned(), name });
        }
        Some(false) if is_directory => return Err(failed(CopyError::NotADirectory(destination.to_owned()))),
        None if ends_in_slash && !is_directory => {
            return Err(failed(CopyError::NoDirectory(destination.to_owned())));
        }
        _ => {}
    }
    // What a link of the host names is replaced, not the link.
    let resolved = if there.is_some() { fs::canonicalize(destination).ok() } else { None };
    let path = resolved.as_deref().unwrap_or(destination);
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (path.file_name().map(OsStr::as_bytes), parent.is_dir()) {
        (Some(name), true) => Ok(Target { directory: parent.to_owned(), name: name.to_vec() }),
        _ => Err(failed(CopyError::NoDirectory(parent.to_owned()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destination_is_dockers() {
        let base = tempfile::tempdir().unwrap();
        let path = |name: &str| PathBuf::from(format!("{}/{name}", base.path().display()));
        fs::create_dir(path("dir")).unwrap();
        fs::write(path("file"), "").unwrap();
        std::os::unix::fs::symlink(path("dir/of-link"), path("dangling")).unwrap();
        std::os::unix::fs::symlink(path("file"), path("link")).unwrap();
        let of = |destination: &str, is_directory, contents| {
            target(&path(destination), is_directory, contents, Some(b"x")).map_err(|failure| failure.message())
        };
        let at = |directory: &str, name: &str| Ok(Target { directory: path(directory), name: name.into() });
        let here = |name: &str| Ok(Target { directory: base.path().to_owned(), name: name.into() });
        assert_eq!(of("dir", false, false), at("dir", "x"));
        assert_eq!(of("dir", true, false), at("dir", "x"));
        assert_eq!(of("dir/", true, true), at("dir/", ""));
        assert_eq!(of("new", false, false), here("new"));
        assert_eq!(of("new", true, false), here("new"));
        assert_eq!(of("new/", true, true), here("new"));
        assert_eq!(of("dangling", false, false), here("dangling"));
        assert_eq!(of("file", false, false), here("file"));
        assert_eq!(of("link", false, false), here("file"));
        for (destination, is_directory, object) in [
            ("file", true, "is not a directory"),
            ("new/", false, "new/: no such directory"),
            ("a/b", false, "/a: no such"),
        ] {
            let error = of(destination, is_directory, false).unwrap_err();
            assert!(error.contains(object), "{error}");
        }
    }
}
