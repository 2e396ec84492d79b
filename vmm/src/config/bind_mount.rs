// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `-v HOST_PATH:GUEST_PATH[:ro]`: a directory or a file of the host in the guest.

use super::guest_path;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BindMountError {
    #[error("expected HOST_PATH:GUEST_PATH[:ro]")]
    Form,
    #[error("`{0}` is not a path of the host, which starts with `/` or `.`")]
    Source(String),
    #[error("`{0}` is not an absolute path below /")]
    Target(String),
    #[error("unknown option `{0}`; expected `ro` or `rw`")]
    Word(String),
    #[error("NUL byte or line break in a path")]
    Byte,
}

/// A path of the host, which is opened in [`run`](crate::run), and its place in the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BindMount {
    pub(crate) source: PathBuf,
    pub(crate) target: String,
    pub(crate) read_only: bool,
}

impl FromStr for BindMount {
    type Err = BindMountError;

    fn from_str(text: &str) -> Result<Self, BindMountError> {
        if text.contains(['\0', '\n']) {
            return Err(BindMountError::Byte);
        }
        let mut words = text.split(':');
        let (source, target) = words.next().zip(words.next()).ok_or(BindMountError::Form)?;
        let read_only = match words.next() {
            None | Some("rw") => false,
            Some("ro") => true,
            Some(word) => return Err(BindMountError::Word(word.to_owned())),
        };
        if words.next().is_some() {
            return Err(BindMountError::Form);
        }
        if !source.starts_with(['/', '.']) {
            return Err(BindMountError::Source(source.to_owned()));
        }
        guest_path::normal(target).ok_or_else(|| BindMountError::Target(target.to_owned()))?;
        Ok(Self { source: source.into(), target: target.to_owned(), read_only })
    }
}

impl fmt::Display for BindMount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}{}", self.source.display(), self.target, if self.read_only { ":ro" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_writes_what_from_str_reads() {
        for text in ["/srv/data:/data", "./d:/d:ro", ".:/here", "../up:/a/b"] {
            assert_eq!(text.parse::<BindMount>().unwrap().to_string(), text);
        }
        assert_eq!("/a:/b:rw".parse::<BindMount>().unwrap().to_string(), "/a:/b");
    }

    #[test]
    fn from_str_rejects_invalid_mounts() {
        for (text, error) in [
            ("", BindMountError::Form),
            ("/a", BindMountError::Form),
            ("/a:/b:ro:x", BindMountError::Form),
            ("name:/b", BindMountError::Source("name".into())),
            (":/b", BindMountError::Source(String::new())),
            ("/a:b", BindMountError::Target("b".into())),
            ("/a:/", BindMountError::Target("/".into())),
            ("/a:/b/../..", BindMountError::Target("/b/../..".into())),
            ("/a:/b:z", BindMountError::Word("z".into())),
            ("/a:/b\0", BindMountError::Byte),
        ] {
            assert_eq!(text.parse::<BindMount>(), Err(error), "{text}");
        }
    }
}
