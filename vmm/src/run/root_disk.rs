// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The root disk of an image: several files, which the guest sees as one disk. Used on the thread `prepare`, by the maker of
//! templates, and by verbs that read the files of a machine.

use super::failure::{FailsAs as _, Failure};
use crate::config::disk::ROOT_SERIAL;
use crate::host::descriptor_limit;
use crate::host::system_error::Cannot as _;
use crate::state::end::EndReason;
use crate::state::kept::KeptMachine;
use devices::rate_limit::RateLimits;
use devices::virtio::block::{BlockConfig, DiskFile};
use oci_image::{RootDisk, RootDiskPart};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

/// An image has at most 1000 layers, each of which is a file of its root disk, and has two more open while the disk is made.
const MIN_DESCRIPTORS: u64 = 4096;

/// Lets this process open as many files as a root disk may have.
pub(super) fn raise_descriptor_limit() {
    descriptor_limit::raise_to(MIN_DESCRIPTORS);
}

/// The disk as a device.
pub(super) fn device(disk: RootDisk) -> BlockConfig {
    let mut files = disk.into_parts().into_iter().map(|RootDiskPart { path, file, .. }| DiskFile { file, path });
    let DiskFile { file, path } = files.next().expect("a root disk has at least one file");
    let (serial, limits) = (ROOT_SERIAL.to_owned(), RateLimits::default());
    BlockConfig { file, path, more: files.collect(), read_only: true, scratch: false, serial, limits }
}

/// Opens the root disk of a kept machine.
pub(super) fn open_kept(machine: &KeptMachine) -> Result<RootDisk, Failure> {
    open(machine.root(), machine.more_root_files())
}

/// Path and identity of each file of a disk, for a process that opens it again.
pub(super) type IdentifiedFiles = Vec<(PathBuf, String)>;

pub(super) fn identify(disk: &BlockConfig) -> Result<IdentifiedFiles, Failure> {
    let identified = disk.files().map(|(file, path)| {
        let metadata = file.metadata().cannot(format!("examine {}", path.display())).fails_as(EndReason::HostError)?;
        Ok((path.to_owned(), identity(&metadata)))
    });
    identified.collect()
}

/// Tells whether a root disk of the cache is still the same file. No process writes to it, so that ctime is not needed; a new link to
/// it, as a kept machine makes, changes that.
fn identity(metadata: &Metadata) -> String {
    let (device, inode, length) = (metadata.dev(), metadata.ino(), metadata.len());
    format!("{device:x}-{inode:x}-{length:x}-{}.{:09}", metadata.mtime(), metadata.mtime_nsec())
}

/// Opens a disk again. `None` if one of its files has changed.
pub(super) fn open_identified(files: &[(PathBuf, String)]) -> Result<Option<BlockConfig>, Failure> {
    let Some(((first, _), more)) = files.split_first() else { return Ok(None) };
    let disk = device(open(first.clone(), more.iter().map(|(path, _)| path.clone()))?);
    Ok(if identify(&disk)? == files { Some(disk) } else { None })
}

fn open(first: PathBuf, others: impl IntoIterator<Item = PathBuf>) -> Result<RootDisk, Failure> {
    raise_descriptor_limit();
    RootDisk::open(first, others)
        .or_else(|(path, error)| Err(error).cannot(format!("open {}", path.display())))
        .fails_as(EndReason::HostError)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn disk_is_opened_again_unless_a_file_has_changed() {
        let directory = tempfile::tempdir().unwrap();
        let paths = ["0", "1", "2"].map(|name| directory.path().join(name));
        paths.iter().for_each(|path| fs::write(path, [0; 512]).unwrap());
        let disk = device(open(paths[0].clone(), paths[1..].to_vec()).unwrap());
        assert!(disk.read_only);
        assert_eq!(disk.files().map(|(_, path)| path).collect::<Vec<_>>(), paths.iter().collect::<Vec<_>>());
        let files = identify(&disk).unwrap();
        let again = open_identified(&files).unwrap().unwrap();
        assert_eq!(again.files().count(), 3);
        assert!(open_identified(&[]).unwrap().is_none());
        fs::remove_file(&paths[2]).unwrap();
        let error = open_identified(&files).unwrap_err().message();
        assert!(error.contains(&*paths[2].to_string_lossy()), "{error}");
        fs::write(&paths[2], [0; 1024]).unwrap();
        assert!(open_identified(&files).unwrap().is_none());
    }

    #[test]
    fn root_disk_is_the_same_with_another_link_and_not_after_a_write_or_in_a_copy() {
        let directory = tempfile::tempdir().unwrap();
        let [disk, link, copy] = ["disk", "link", "copy"].map(|name| directory.path().join(name));
        let now = || identity(&fs::metadata(&disk).unwrap());
        fs::write(&disk, "root").unwrap();
        let before = now();
        fs::hard_link(&disk, &link).unwrap();
        assert_eq!(now(), before);
        fs::copy(&disk, &copy).unwrap();
        assert_ne!(identity(&fs::metadata(&copy).unwrap()), before);
        fs::write(&disk, "other").unwrap();
        assert_ne!(now(), before);
    }
}
