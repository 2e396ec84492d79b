// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The disk that takes a workload's writes: sparse, without a name, so that it ends with the process however that ends.
//! Formatted by `mke2fs` once a size; later ones are copies of that template's few hundred KiB (`template.rs`).

use super::directories::Directories;
use super::mke2fs::{FormatError, format};
use super::template;
use super::tmpfile::tmpfile;
use devices::virtio::block::BlockConfig;
use rustix::io::Errno;
use std::io;
use std::path::PathBuf;

/// No scratch disk.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScratchError {
    /// The folder takes no file.
    #[error("cannot make a scratch disk in {folder}")]
    Create {
        /// Where.
        folder: PathBuf,
        /// Why.
        source: Errno,
    },
    /// The file system is full, or limits the size of files.
    #[error("cannot write the scratch disk in {folder}")]
    Write {
        /// Where.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be formatted.
    #[error(transparent)]
    Format(#[from] FormatError),
}

/// Makes a formatted disk of `size` bytes.
///
/// # Errors
/// The host has no place for it, or no program that formats it.
pub(crate) fn create(size: u64, folders: &Directories, serial: &str) -> Result<BlockConfig, ScratchError> {
    let folder = folders.large_temporary();
    let file = tmpfile(&folder).map_err(|source| ScratchError::Create { folder: folder.clone(), source })?;
    file.set_len(size).map_err(|source| ScratchError::Write { folder: folder.clone(), source })?;
    let copied = match folders.cache() {
        Ok(cache) => template::copy(size, &cache, &file)?,
        Err(_) => template::Copied::NoTemplate,
    };
    match copied {
        template::Copied::Yes => {}
        template::Copied::NoTemplate => format(&file, size)?,
        template::Copied::Failed(source) => return Err(ScratchError::Write { folder, source }),
    }
    Ok(BlockConfig {
        file,
        path: folder.join("scratch disk"),
        read_only: false,
        scratch: true,
        serial: serial.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};
    use std::path::Path;

    /// Magic number of an ext4 file system, where it lies, and the size in blocks that it claims.
    fn claimed_size(file: &File) -> u64 {
        let mut superblock = [0; 1024];
        file.read_exact_at(&mut superblock, 1024).unwrap();
        assert_eq!(superblock[56..58], 0xef53_u16.to_le_bytes(), "magic number");
        u64::from(u32::from_le_bytes(*superblock[4..].first_chunk().unwrap())) * 4096
    }

    fn folders(folder: &Path) -> Directories {
        let (cache, temporary) = (folder.join("cache"), folder.join("tmp"));
        std::fs::create_dir(&temporary).unwrap();
        Directories { cache_home: Some(cache), temporary: Some(temporary), ..Directories::default() }
    }

    #[test]
    fn a_scratch_disk_is_sparse_formatted_and_has_no_name() {
        let folder = tempfile::tempdir().unwrap();
        let folders = folders(folder.path());
        for round in ["formatted", "copied"] {
            let disk = create(8 << 30, &folders, "scratch").unwrap();
            assert_eq!(claimed_size(&disk.file), 8 << 30, "{round}");
            let metadata = disk.file.metadata().unwrap();
            assert_eq!(metadata.nlink(), 0, "{round}");
            assert!(metadata.blocks() * 512 < 1 << 20, "{round}: {} blocks", metadata.blocks());
            assert!(disk.scratch && !disk.read_only);
            let left = std::fs::read_dir(folders.large_temporary()).unwrap().count();
            assert_eq!(left, 0, "{round}");
        }
    }

    #[test]
    fn a_copy_is_the_same_as_a_newly_formatted_disk() {
        let folder = tempfile::tempdir().unwrap();
        let folders = folders(folder.path());
        let [first, second] = [(); 2].map(|()| create(64 << 20, &folders, "scratch").unwrap());
        let bytes = |disk: &BlockConfig| {
            let mut bytes = vec![0; 64 << 20];
            disk.file.read_exact_at(&mut bytes, 0).unwrap();
            bytes
        };
        assert!(bytes(&first) == bytes(&second));
    }

    #[test]
    fn without_a_cache_the_disk_is_formatted_itself() {
        let folder = tempfile::tempdir().unwrap();
        let folders = Directories { cache_home: None, ..folders(folder.path()) };
        assert_eq!(claimed_size(&create(16 << 20, &folders, "scratch").unwrap().file), 16 << 20);
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let folders = Directories { temporary: Some("/nowhere/tmp".into()), ..Directories::default() };
        let error = create(16 << 20, &folders, "scratch").unwrap_err();
        assert!(error.to_string().contains("/nowhere/tmp"), "{error}");
    }
}
