// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--tmpfs PATH[:OPTIONS]`.

use super::guest_path;
use super::text_form::text_form;
use guest_protocol::run_spec::TmpfsMount;
use std::fmt;
use std::str::FromStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TmpfsError {
    #[error("expected PATH[:OPTIONS] with an absolute PATH below /")]
    Path,
    #[error("NUL byte or line break in the path or the options")]
    Byte,
}

/// An absolute path and mount options, which the guest's kernel checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tmpfs(TmpfsMount);

impl Tmpfs {
    #[must_use]
    pub(crate) fn mount(&self) -> TmpfsMount {
        self.0.clone()
    }

    #[must_use]
    pub(crate) fn path(&self) -> &str {
        &self.0.path
    }
}

impl FromStr for Tmpfs {
    type Err = TmpfsError;

    fn from_str(text: &str) -> Result<Self, TmpfsError> {
        let (path, options) = text.split_once(':').unwrap_or((text, ""));
        if text.contains(['\0', '\n']) {
            return Err(TmpfsError::Byte);
        }
        guest_path::normal(path).ok_or(TmpfsError::Path)?;
        Ok(Self(TmpfsMount { path: path.to_owned(), options: options.to_owned() }))
    }
}

impl fmt::Display for Tmpfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TmpfsMount { path, options } = &self.0;
        write!(f, "{path}{}{options}", if options.is_empty() { "" } else { ":" })
    }
}

text_form!(Tmpfs);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_str_splits_at_the_first_colon() {
        let tmpfs: Tmpfs = "/data:size=16m,mode=1777".parse().unwrap();
        let expected = TmpfsMount { path: "/data".into(), options: "size=16m,mode=1777".into() };
        assert_eq!(tmpfs.mount(), expected);
        assert_eq!(tmpfs.to_string(), "/data:size=16m,mode=1777");
        assert_eq!("/run".parse::<Tmpfs>().unwrap().to_string(), "/run");
    }

    #[test]
    fn from_str_rejects_relative_paths_and_dot_dot() {
        for text in ["", "relative", ":size=1m", "/", "//", "/./", "/a/../..", "/../etc"] {
            assert_eq!(text.parse::<Tmpfs>(), Err(TmpfsError::Path), "{text}");
        }
        assert_eq!("/a\0".parse::<Tmpfs>(), Err(TmpfsError::Byte));
    }
}
