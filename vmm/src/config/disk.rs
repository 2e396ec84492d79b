// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--disk path=FILE[,ro][,serial=S]`: a disk that the user brings, and its opening.

use super::text_form::text_form;
use devices::virtio::block::BlockConfig;
use rustix::fs::{FileType, Mode, OFlags, fstat};
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Serial of the root disk.
pub(crate) const ROOT_SERIAL: &str = "root";
/// Serial of the scratch disk.
pub(crate) const SCRATCH_SERIAL: &str = "scratch";

/// No disk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DiskError {
    /// A word that is none of the three.
    #[error("a disk is path=FILE[,ro][,serial=S], without `{0}`")]
    Word(String),
    /// A word too many.
    #[error("a disk has one `{0}`")]
    Twice(&'static str),
    /// No file.
    #[error("a disk has a path: path=FILE[,ro][,serial=S]")]
    NoPath,
    /// A serial that a device cannot have or that is taken.
    #[error("the serial `{0}` is not 1 to 20 letters, digits, `_`, `.` or `-`, or is one of coracle's own")]
    Serial(String),
}

/// Disks that cannot be used together, or not at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// It cannot be opened as asked.
    #[error("cannot open disk {path}{}", if *.read_only { "" } else { " for writing (`,ro` opens it for reading)" })]
    Open {
        /// The disk.
        path: PathBuf,
        /// How it was to be opened.
        read_only: bool,
        /// Why it cannot.
        source: std::io::Error,
    },
    /// Two machines' worth of trouble in one.
    #[error("{0} is given as two disks, and one of them is writable")]
    Shared(PathBuf),
    /// Two disks that the guest could not tell apart.
    #[error("two disks have the serial `{0}`")]
    Serial(String),
    /// More disks than a machine has places for.
    #[error("a machine has at most {0} disks of the user's")]
    Many(usize),
}

/// A disk as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Disk {
    path: PathBuf,
    read_only: bool,
    serial: Option<String>,
}

impl FromStr for Disk {
    type Err = DiskError;

    fn from_str(text: &str) -> Result<Self, DiskError> {
        let (mut path, mut read_only, mut serial) = (None, false, None);
        for word in text.split(',') {
            match word.split_once('=') {
                Some(("path", _)) if path.is_some() => return Err(DiskError::Twice("path")),
                Some(("serial", _)) if serial.is_some() => return Err(DiskError::Twice("serial")),
                None if word == "ro" && read_only => return Err(DiskError::Twice("ro")),
                Some(("path", file)) if !file.is_empty() && !file.contains('\0') => path = Some(PathBuf::from(file)),
                Some(("path", _)) => return Err(DiskError::NoPath),
                Some(("serial", value)) => serial = Some(check_serial(value)?),
                None if word == "ro" => read_only = true,
                _ => return Err(DiskError::Word(word.to_owned())),
            }
        }
        Ok(Self { path: path.ok_or(DiskError::NoPath)?, read_only, serial })
    }
}

fn check_serial(serial: &str) -> Result<String, DiskError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    match (1..=20).contains(&serial.len()) && serial.chars().all(allowed) {
        true if ![ROOT_SERIAL, SCRATCH_SERIAL].contains(&serial) => Ok(serial.to_owned()),
        _ => Err(DiskError::Serial(serial.to_owned())),
    }
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "path={}", self.path.display())?;
        f.write_str(if self.read_only { ",ro" } else { "" })?;
        self.serial.as_ref().map_or(Ok(()), |serial| write!(f, ",serial={serial}"))
    }
}

text_form!(Disk);

/// Most disks beside root and scratch: every interrupt line but those of console, entropy, network and these two.
const MOST: usize = 12;

/// Opens `disks` in their order; those without a serial become `disk0`, `disk1` and so on by their place. `root` is the
/// user's own root disk, if there is one, which is open for reading already.
///
/// # Errors
/// One cannot be opened, or two of them are the same and one is writable.
pub(crate) fn open_all(disks: &[Disk], root: Option<&BlockConfig>) -> Result<Vec<BlockConfig>, OpenError> {
    if disks.len() > MOST {
        return Err(OpenError::Many(MOST));
    }
    let mut opened: Vec<BlockConfig> = Vec::new();
    for (index, disk) in disks.iter().enumerate() {
        let serial = disk.serial.clone().unwrap_or_else(|| format!("disk{index}"));
        if opened.iter().any(|other| other.serial == serial) {
            return Err(OpenError::Serial(serial));
        }
        let disk = open(&disk.path, disk.read_only, serial)?;
        let is_same = |other: &&BlockConfig| same_disk(&other.file, &disk.file);
        if let Some(other) = opened.iter().chain(root).find(is_same)
            && !(other.read_only && disk.read_only)
        {
            return Err(OpenError::Shared(disk.path));
        }
        opened.push(disk);
    }
    Ok(opened)
}

/// Opens a disk without waiting for the other end of a pipe; what it is, the device looks at.
///
/// # Errors
/// The file is not there or may not be opened.
pub(crate) fn open(path: &Path, read_only: bool, serial: String) -> Result<BlockConfig, OpenError> {
    let access = if read_only { OFlags::RDONLY } else { OFlags::RDWR };
    let flags = access | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| OpenError::Open {
        path: path.to_owned(),
        read_only,
        source: error.into(),
    })?;
    Ok(BlockConfig { file: file.into(), path: path.to_owned(), read_only, scratch: false, serial })
}

/// Whether both are the same file, or nodes of the same block device.
fn same_disk(one: &File, other: &File) -> bool {
    let (Ok(one), Ok(other)) = (fstat(one), fstat(other)) else { return false };
    let is_device = |mode| FileType::from_raw_mode(mode) == FileType::BlockDevice;
    match (is_device(one.st_mode), is_device(other.st_mode)) {
        (true, true) => one.st_rdev == other.st_rdev,
        (false, false) => (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_read_and_written_in_one_form() {
        for text in ["path=a.img", "path=/x/y=z.img,ro", "path=a,serial=data-1", "path=a,ro,serial=S"] {
            assert_eq!(text.parse::<Disk>().unwrap().to_string(), text);
        }
        assert_eq!("serial=S,ro,path=a".parse::<Disk>().unwrap().to_string(), "path=a,ro,serial=S");
    }

    #[test]
    fn what_is_no_disk_is_refused() {
        for (text, error) in [
            ("", DiskError::Word(String::new())),
            ("file.img", DiskError::Word("file.img".into())),
            ("path=", DiskError::NoPath),
            ("ro", DiskError::NoPath),
            ("path=x,colour=red", DiskError::Word("colour=red".into())),
            ("path=x,path=y", DiskError::Twice("path")),
            ("path=x,ro,ro", DiskError::Twice("ro")),
            ("path=x,serial=", DiskError::Serial(String::new())),
            ("path=x,serial=root", DiskError::Serial("root".into())),
            ("path=x,serial=012345678901234567890", DiskError::Serial("012345678901234567890".into())),
        ] {
            assert_eq!(text.parse::<Disk>(), Err(error), "{text}");
        }
    }

    fn open_texts(texts: &[String]) -> Result<Vec<BlockConfig>, OpenError> {
        open_all(&texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>(), None)
    }

    #[test]
    fn one_file_is_two_disks_only_if_nobody_writes() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("a.img"), folder.path().join("link"));
        std::fs::write(&file, [0; 512]).unwrap();
        std::fs::hard_link(&file, &link).unwrap();
        let text = |path: &Path, more: &str| format!("path={}{more}", path.display());
        let shared = open_texts(&[text(&file, ",ro"), text(&link, ",ro")]).unwrap();
        assert_eq!([&*shared[0].serial, &*shared[1].serial], ["disk0", "disk1"]);
        for texts in [[text(&file, ""), text(&link, ",ro")], [text(&file, ",ro"), text(&link, "")]] {
            assert!(matches!(open_texts(&texts), Err(OpenError::Shared(path)) if path == link), "{texts:?}");
        }
    }

    #[test]
    fn two_disks_of_one_serial_are_refused() {
        let texts = ["path=/dev/null,ro,serial=disk1".to_owned(), "path=/dev/zero,ro".to_owned()];
        assert!(matches!(open_texts(&texts), Err(OpenError::Serial(serial)) if serial == "disk1"));
    }
}
