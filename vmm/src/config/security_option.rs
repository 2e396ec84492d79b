// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--security-opt no-new-privileges[:true|false]`, in docker's form.

use super::text_form::text_form;
use std::fmt;
use std::str::FromStr;

const NAME: &str = "no-new-privileges";

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {NAME}; other options concern the host's kernel, which no system call of the workload reaches")]
pub(crate) struct SecurityOptionError;

/// Whether programs can give the workload more privileges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SecurityOption {
    pub(crate) no_new_privileges: bool,
}

impl FromStr for SecurityOption {
    type Err = SecurityOptionError;

    fn from_str(text: &str) -> Result<Self, SecurityOptionError> {
        let (name, value) = text.split_once([':', '=']).unwrap_or((text, "true"));
        match (name, value.parse()) {
            (NAME, Ok(no_new_privileges)) => Ok(Self { no_new_privileges }),
            _ => Err(SecurityOptionError),
        }
    }
}

impl fmt::Display for SecurityOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{NAME}:{}", self.no_new_privileges)
    }
}

text_form!(SecurityOption);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_str_reads_dockers_forms() {
        for (text, no_new_privileges) in [
            ("no-new-privileges", true),
            ("no-new-privileges:true", true),
            ("no-new-privileges=true", true),
            ("no-new-privileges:false", false),
        ] {
            assert_eq!(text.parse(), Ok(SecurityOption { no_new_privileges }), "{text}");
        }
        for text in ["", "no-new-privileges:", "no-new-privileges:1", "seccomp=unconfined", "apparmor:x"] {
            assert_eq!(text.parse::<SecurityOption>(), Err(SecurityOptionError), "{text:?}");
        }
    }
}
