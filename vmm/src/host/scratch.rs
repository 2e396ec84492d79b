// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The disk that takes a workload's writes: sparse, without a name, so that it ends with the process however that ends.
//! Formatted by `mke2fs` once a size; later ones are copies of that template's few hundred KiB (`template.rs`).

use super::folders::Folders;
use super::template;
use crate::config::disk::SCRATCH_SERIAL;
use devices::virtio::block::BlockConfig;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// No scratch disk.
#[derive(Debug, thiserror::Error)]
pub enum ScratchError {
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
    /// A program that formats is needed.
    #[error("mke2fs is not installed: install e2fsprogs, or use --scratch tmpfs")]
    NoMke2fs,
    /// It cannot be started.
    #[error("cannot run mke2fs")]
    Start(#[source] io::Error),
    /// It refused.
    #[error("mke2fs cannot format a scratch disk of {size} bytes: {message}")]
    Format {
        /// Of the disk.
        size: u64,
        /// Its last line.
        message: String,
    },
}

/// Makes a formatted disk of `size` bytes.
///
/// # Errors
/// The host has no place for it, or no program that formats it.
pub fn create(size: u64, folders: &Folders) -> Result<BlockConfig, ScratchError> {
    let folder = folders.large_temporary();
    let file = unnamed(&folder).map_err(|source| ScratchError::Create { folder: folder.clone(), source })?;
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
        serial: SCRATCH_SERIAL.to_owned(),
    })
}

/// A file without a name in `folder`. Where the file system has none of the kind, one whose name is gone at once.
pub(super) fn unnamed(folder: &Path) -> Result<File, Errno> {
    let mode = Mode::RUSR | Mode::WUSR;
    match rustix::fs::open(folder, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, mode) {
        // The last is what a kernel says that knows no such files.
        Err(Errno::OPNOTSUPP | Errno::ISDIR) => {}
        result => return Ok(result?.into()),
    }
    let name = crate::control::run_dir::random_id().map_err(|_| Errno::IO)?;
    let path = folder.join(format!(".coracle-scratch-{name}"));
    let file = rustix::fs::openat(CWD, &path, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC, mode)?;
    rustix::fs::unlink(&path)?;
    Ok(file.into())
}

/// Features of the file system, and only these, whatever the host's `mke2fs.conf` says. No journal and no checksums: what
/// is on the disk never outlives the machine, and on hosts that emulate the guest's kernel each checksum is expensive.
/// `uninit_bg` lets the guest take most of the disk as never used.
const FEATURES: &str = "none,dir_index,dir_nlink,ext_attr,extent,extra_isize,filetype,flex_bg,huge_file,large_file,\
                        sparse_super2,uninit_bg";

/// Formats `file`, which has `size` bytes that read as zeroes.
pub(super) fn format(file: &File, size: u64) -> Result<(), ScratchError> {
    // A user's path need not have the administrator's folders.
    for program in ["mke2fs", "/usr/sbin/mke2fs", "/sbin/mke2fs"] {
        let mut command = Command::new(program);
        command.args(["-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-i", "16384", "-m", "0", "-O", FEATURES]);
        command.args(["-E", "nodiscard,lazy_itable_init=1,num_backup_sb=0,root_owner=0:0", "/proc/self/fd/0"]);
        let stdin = file.try_clone().map_err(ScratchError::Start)?;
        let output = match command.stdin(stdin).stdout(Stdio::null()).stderr(Stdio::piped()).output() {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            result => result.map_err(ScratchError::Start)?,
        };
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let message = text.lines().map(str::trim).rfind(|line| !line.is_empty());
        let message = message.map_or_else(|| output.status.to_string(), str::to_owned);
        return Err(ScratchError::Format { size, message });
    }
    Err(ScratchError::NoMke2fs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};

    /// Magic number of an ext4 file system, where it lies, and the size in blocks that it claims.
    fn claimed_size(file: &File) -> u64 {
        let mut superblock = [0; 1024];
        file.read_exact_at(&mut superblock, 1024).unwrap();
        assert_eq!(superblock[56..58], 0xef53_u16.to_le_bytes(), "magic number");
        u64::from(u32::from_le_bytes(*superblock[4..].first_chunk().unwrap())) * 4096
    }

    fn folders(folder: &Path) -> Folders {
        let (cache, temporary) = (folder.join("cache"), folder.join("tmp"));
        std::fs::create_dir(&temporary).unwrap();
        Folders { cache_home: Some(cache), temporary: Some(temporary), ..Folders::default() }
    }

    #[test]
    fn a_scratch_disk_is_sparse_formatted_and_has_no_name() {
        let folder = tempfile::tempdir().unwrap();
        let folders = folders(folder.path());
        for round in ["formatted", "copied"] {
            let disk = create(8 << 30, &folders).unwrap();
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
        let [first, second] = [(); 2].map(|()| create(64 << 20, &folders).unwrap());
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
        let folders = Folders { cache_home: None, ..folders(folder.path()) };
        assert_eq!(claimed_size(&create(16 << 20, &folders).unwrap().file), 16 << 20);
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let folders = Folders { temporary: Some("/nowhere/tmp".into()), ..Folders::default() };
        let error = create(16 << 20, &folders).unwrap_err();
        assert!(error.to_string().contains("/nowhere/tmp"), "{error}");
    }

    #[test]
    fn a_size_that_holds_no_file_system_is_refused_with_the_programs_own_words() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let error = format(&file, 4096).unwrap_err();
        assert!(matches!(&error, ScratchError::Format { message, .. } if !message.is_empty()), "{error}");
    }
}
