// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Opens what `-v` names, and says where it is mounted; and the directory of `--rootfs`. Runs on the thread `prepare`.

use crate::config::bind_mount::BindMount;
use crate::config::disk::ROOT_SERIAL;
use crate::config::request::Request;
use crate::host::descriptor_limit;
use crate::host::directories::{Directories, IN_CONTAINER};
use devices::virtio::fs::FsConfig;
use guest_protocol::run_spec::ShareMount;
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Descriptors of one device, at most and at least.
const MAX_DESCRIPTORS: u64 = 16 << 10;
const MIN_DESCRIPTORS: u64 = 16;

/// A path of the host that cannot be shared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShareError {
    #[error("-v {mount}: cannot open {path}")]
    Open { mount: String, path: PathBuf, source: std::io::Error },
    #[error("-v {mount}: {path} is neither a directory nor a regular file")]
    Type { mount: String, path: PathBuf },
    #[error("--rootfs: cannot open directory {path}")]
    Root { path: PathBuf, source: std::io::Error },
}

/// One path of the host, open, and its place in the guest.
#[derive(Debug)]
pub(crate) struct Share {
    pub(crate) device: FsConfig,
    pub(crate) mount: ShareMount,
}

/// Opens the sources of `mounts`, in their order. Each device has up to `max_descriptors`.
///
/// # Errors
/// One does not exist, may not be opened, or is no file or directory.
pub(crate) fn open_shares(mounts: &[&BindMount], max_descriptors: usize) -> Result<Vec<Share>, ShareError> {
    let share = |(index, mount): (usize, &&BindMount)| open_share(mount, format!("share{index}"), max_descriptors);
    mounts.iter().enumerate().map(share).collect()
}

/// Opens the directory `path` as a root, whose device has up to `max_descriptors`.
///
/// # Errors
/// It may not be opened.
pub(crate) fn open_root(path: &Path, read_only: bool, max_descriptors: usize) -> Result<FsConfig, ShareError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let failed = |error: rustix::io::Errno| ShareError::Root { path: path.to_owned(), source: error.into() };
    let directory = open(path, flags, Mode::empty()).map_err(failed)?;
    Ok(FsConfig { tag: ROOT_SERIAL.to_owned(), directory, only: None, read_only, max_descriptors, closed: [].into() })
}

/// The directories of coracle itself that exist. No guest enters them through a share of a directory above.
pub(crate) fn own_directories(request: &Request, directories: &Directories) -> Arc<[OwnedFd]> {
    let run = request.run_dir.clone().unwrap_or_else(|| directories.run());
    let others = [directories.cache().ok(), directories.images().ok(), directories.volumes().ok()];
    let paths = [run, IN_CONTAINER.into()].into_iter().chain(others.into_iter().flatten());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    paths.filter_map(|path| open(path, flags, Mode::empty()).ok()).collect()
}

/// Descriptors of each device for directories and files of the host: the root's, and one for each of `mounts`. Half of all stay
/// for the rest of the machine.
pub(crate) fn max_descriptors(request: &Request, mounts: usize) -> usize {
    match devices(request, mounts) {
        // The limit stays as it is.
        0 => 0,
        devices => (descriptor_limit::raise() / 2 / devices as u64).clamp(MIN_DESCRIPTORS, MAX_DESCRIPTORS) as usize,
    }
}

fn devices(request: &Request, mounts: usize) -> usize {
    mounts + usize::from(request.is_root_directory())
}

fn open_share(mount: &BindMount, tag: String, max_descriptors: usize) -> Result<Share, ShareError> {
    let failed = |source| ShareError::Open { mount: mount.to_string(), path: mount.source.clone(), source };
    // A symbolic link that the user gives is followed here, once.
    let path = mount.source.canonicalize().map_err(failed)?;
    let open_path =
        |path: &Path, flags| open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC | flags, Mode::empty());
    let file = open_path(&path, OFlags::empty()).map_err(|error| failed(error.into()))?;
    let kind = FileType::from_raw_mode(fstat(&file).map_err(|error| failed(error.into()))?.st_mode);
    let (directory, only) = match (kind, path.parent(), path.file_name().and_then(|name| name.to_str())) {
        (FileType::Directory, _, _) => (file, None),
        (FileType::RegularFile, Some(parent), Some(name)) => {
            let parent = open_path(parent, OFlags::DIRECTORY).map_err(|error| failed(error.into()))?;
            (parent, Some(name.to_owned()))
        }
        _ => return Err(ShareError::Type { mount: mount.to_string(), path: mount.source.clone() }),
    };
    let name = only.as_deref().map(|name| CString::new(name).expect("a name of the kernel has no zero byte"));
    let read_only = mount.read_only;
    Ok(Share {
        device: FsConfig { tag: tag.clone(), directory, only: name, read_only, max_descriptors, closed: [].into() },
        mount: ShareMount { tag, path: mount.target.clone(), file: only, read_only },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejection(text: &str) -> String {
        open_shares(&[&text.parse().unwrap()], 16).unwrap_err().to_string()
    }

    #[test]
    fn file_is_shared_as_the_only_name_of_its_directory() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("f"), "x").unwrap();
        let text = format!("{}/f:/etc/f:ro", directory.path().display());
        let shares = open_shares(&[&text.parse().unwrap()], 16).unwrap();
        assert_eq!(shares[0].device.only.as_deref(), Some(c"f"));
        let expected =
            ShareMount { tag: "share0".into(), path: "/etc/f".into(), file: Some("f".into()), read_only: true };
        assert_eq!(shares[0].mount, expected);
    }

    #[test]
    fn root_directory_and_mounts_share_the_descriptors() {
        let image = Request::default();
        let root = Request { rootfs: Some("/".into()), ..Request::default() };
        assert_eq!([0, 3].map(|mounts| devices(&image, mounts)), [0, 3]);
        assert_eq!([0, 3].map(|mounts| devices(&root, mounts)), [1, 4]);
        assert_eq!(max_descriptors(&image, 0), 0);
    }

    #[test]
    fn own_directories_are_those_that_exist() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| Some(directory.path().join(name));
        let request = Request { run_dir: path("run"), ..Request::default() };
        let directories = Directories { cache_home: path("cache"), data_home: path("data"), ..Directories::default() };
        let count = || own_directories(&request, &directories).len();
        let before = count();
        for name in ["run", "cache/coracle", "data/coracle/images", "data/coracle/volumes"] {
            std::fs::create_dir_all(directory.path().join(name)).unwrap();
        }
        assert_eq!(count(), before + 4);
    }

    #[test]
    fn missing_path_and_device_are_rejected() {
        assert!(rejection("/nowhere/x:/x").contains("/nowhere/x"));
        assert!(rejection("/dev/null:/x").contains("neither a directory nor a regular file"));
    }
}
