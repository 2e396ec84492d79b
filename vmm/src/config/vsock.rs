// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--vsock PATH[,cid=N]`: stream sockets between the guest and programs of the host.

use super::text_form::text_form;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// 0 to 2 are reserved (2 is the host), and so is the largest number.
const CIDS: std::ops::RangeInclusive<u32> = 3..=u32::MAX - 1;
const DEFAULT_CID: u32 = 3;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum VsockError {
    #[error("no path; expected PATH[,cid=N]")]
    NoPath,
    #[error("unknown word `{0}`; expected PATH[,cid=N]")]
    Word(String),
    #[error("cid `{word}`: expected a number from {} to {}", CIDS.start(), CIDS.end())]
    Cid { word: String },
    #[error("more than one `cid`")]
    Twice,
}

/// The socket of the host, and the address of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Vsock {
    pub(crate) path: PathBuf,
    pub(crate) cid: u32,
}

impl FromStr for Vsock {
    type Err = VsockError;

    fn from_str(text: &str) -> Result<Self, VsockError> {
        let mut words = text.split(',');
        let path = words.next().filter(|path| !path.is_empty() && !path.contains('\0')).ok_or(VsockError::NoPath)?;
        let mut cid = None;
        for word in words {
            let number = word.strip_prefix("cid=").ok_or_else(|| VsockError::Word(word.to_owned()))?;
            let digits = Some(number).filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
            let parsed = digits.and_then(|digits| digits.parse().ok()).filter(|number| CIDS.contains(number));
            let parsed = parsed.ok_or_else(|| VsockError::Cid { word: number.to_owned() })?;
            if cid.replace(parsed).is_some() {
                return Err(VsockError::Twice);
            }
        }
        Ok(Self { path: path.into(), cid: cid.unwrap_or(DEFAULT_CID) })
    }
}

impl fmt::Display for Vsock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},cid={}", self.path.display(), self.cid)
    }
}

text_form!(Vsock);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_str_reads_path_and_cid() {
        let vsock = |path: &str, cid| Ok(Vsock { path: path.into(), cid });
        assert_eq!("/run/v.sock".parse(), vsock("/run/v.sock", 3));
        assert_eq!("v,cid=4294967294".parse(), vsock("v", u32::MAX - 1));
        assert_eq!("v,cid=7".parse::<Vsock>().unwrap().to_string(), "v,cid=7");
    }

    #[test]
    fn from_str_rejects_other_words_and_reserved_cids() {
        assert_eq!(",cid=3".parse::<Vsock>(), Err(VsockError::NoPath));
        assert_eq!("v,".parse::<Vsock>(), Err(VsockError::Word(String::new())));
        assert_eq!("v,port=3".parse::<Vsock>(), Err(VsockError::Word("port=3".into())));
        assert_eq!("v,cid=3,cid=4".parse::<Vsock>(), Err(VsockError::Twice));
        for cid in ["", "0", "1", "2", "4294967295", "4294967296", "-1", "+5", "0x5"] {
            assert_eq!(format!("v,cid={cid}").parse::<Vsock>(), Err(VsockError::Cid { word: cid.into() }));
        }
    }
}
