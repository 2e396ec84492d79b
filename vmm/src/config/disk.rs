// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--disk path=FILE[,ro][,serial=S]` and limits of its rate: a disk that the user adds.

use super::rate::{self, RateError};
use super::text_form::text_form;
use devices::rate_limit::RateLimits;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

pub(crate) const ROOT_SERIAL: &str = "root";
pub(crate) const SCRATCH_SERIAL: &str = "scratch";
/// Serials of volumes begin with it. The user gives none with a colon.
pub(crate) const VOLUME_SERIAL: &str = "volume:";

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DiskError {
    #[error(
        "unknown word `{0}`; expected path=FILE[,ro][,serial=S][,read-bps=RATE][,read-iops=N][,write-bps=RATE]\
         [,write-iops=N]"
    )]
    Word(String),
    #[error("more than one `{0}`")]
    Twice(&'static str),
    #[error("no path; expected path=FILE[,ro][,serial=S]")]
    NoPath,
    #[error("serial `{0}`: expected 1 to 20 letters, digits, `_`, `.` or `-`, and neither `root` nor `scratch`")]
    Serial(String),
    #[error(transparent)]
    Rate(#[from] RateError),
}

/// A disk as given; it is opened in [`run`](crate::run).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Disk {
    pub(crate) path: PathBuf,
    pub(crate) read_only: bool,
    pub(crate) serial: Option<String>,
    pub(crate) limits: RateLimits,
}

impl FromStr for Disk {
    type Err = DiskError;

    fn from_str(text: &str) -> Result<Self, DiskError> {
        let (mut path, mut read_only, mut serial) = (None, false, None);
        let mut limits = RateLimits::default();
        for word in text.split(',') {
            match word.split_once('=') {
                Some(("path", _)) if path.is_some() => return Err(DiskError::Twice("path")),
                Some(("serial", _)) if serial.is_some() => return Err(DiskError::Twice("serial")),
                None if word == "ro" && read_only => return Err(DiskError::Twice("ro")),
                Some(("path", file)) if !file.is_empty() && !file.contains('\0') => path = Some(PathBuf::from(file)),
                Some(("path", _)) => return Err(DiskError::NoPath),
                Some(("serial", value)) => serial = Some(check_serial(value)?),
                None if word == "ro" => read_only = true,
                Some((key, value)) if rate::DISK.parse(&mut limits, key, value)? => {}
                _ => return Err(DiskError::Word(word.to_owned())),
            }
        }
        Ok(Self { path: path.ok_or(DiskError::NoPath)?, read_only, serial, limits })
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
        self.serial.as_ref().map_or(Ok(()), |serial| write!(f, ",serial={serial}"))?;
        rate::DISK.write(self.limits, f)
    }
}

text_form!(Disk);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_writes_what_from_str_reads() {
        for text in [
            "path=a.img",
            "path=/x/y=z.img,ro",
            "path=a,serial=data-1",
            "path=a,ro,serial=S",
            "path=a,read-bps=10m,read-iops=500,write-bps=1,write-iops=1",
        ] {
            assert_eq!(text.parse::<Disk>().unwrap().to_string(), text);
        }
        assert_eq!("serial=S,ro,path=a".parse::<Disk>().unwrap().to_string(), "path=a,ro,serial=S");
    }

    #[test]
    fn from_str_rejects_invalid_disks() {
        for (text, error) in [
            ("", DiskError::Word(String::new())),
            ("file.img", DiskError::Word("file.img".into())),
            ("path=", DiskError::NoPath),
            ("ro", DiskError::NoPath),
            ("path=x,colour=red", DiskError::Word("colour=red".into())),
            ("path=x,path=y", DiskError::Twice("path")),
            ("path=x,read-bps=1,read-bps=2", DiskError::Rate(RateError::Twice("read-bps"))),
            ("path=x,write-iops=0", DiskError::Rate(RateError::Operations("write-iops", "0".into()))),
            ("path=x,ro,ro", DiskError::Twice("ro")),
            ("path=x,serial=", DiskError::Serial(String::new())),
            ("path=x,serial=root", DiskError::Serial("root".into())),
            ("path=x,serial=012345678901234567890", DiskError::Serial("012345678901234567890".into())),
        ] {
            assert_eq!(text.parse::<Disk>(), Err(error), "{text}");
        }
    }
}
