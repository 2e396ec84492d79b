// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--sysctl NAME=VALUE`: a kernel parameter of the guest, one of those that docker sets in a container's namespaces.

use super::text_form::text_form;
use std::fmt;
use std::str::FromStr;

const MAX_BYTES: usize = 4095;
pub(crate) const SUPPORTED: &str = "net.*, kernel.shm*, kernel.msg*, kernel.sem and fs.mqueue.*";

/// Whether it belongs to the workload's network or IPC namespace.
#[must_use]
pub(crate) fn is_supported(name: &str) -> bool {
    name == "kernel.sem"
        || ["net.", "kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|prefix| name.starts_with(prefix))
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected NAME=VALUE (net.ipv4.ip_forward=1); the names are {SUPPORTED}")]
pub(crate) struct SysctlError;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sysctl {
    pub(crate) name: String,
    pub(crate) value: String,
}

impl FromStr for Sysctl {
    type Err = SysctlError;

    fn from_str(text: &str) -> Result<Self, SysctlError> {
        let (name, value) = text.split_once('=').ok_or(SysctlError)?;
        let part = |part: &str| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
        };
        let named = is_supported(name) && name.split('.').all(part);
        match named && text.len() <= MAX_BYTES && !value.is_empty() && !value.contains(char::is_control) {
            true => Ok(Self { name: name.to_owned(), value: value.to_owned() }),
            false => Err(SysctlError),
        }
    }
}

impl fmt::Display for Sysctl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.value)
    }
}

text_form!(Sysctl);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_str_takes_parameters_of_the_namespaces_only() {
        for text in
            ["net.ipv4.ip_local_port_range=1024 65535", "kernel.shmmax=1", "kernel.sem=1 2 3 4", "fs.mqueue.msg_max=9"]
        {
            assert_eq!(text.parse::<Sysctl>().unwrap().to_string(), text);
        }
        for text in
            ["", "net.ipv4.ip_forward", "kernel.core_pattern=|x", "net.x=", "net..x=1", "net.../x=1", "net.x=1\n"]
        {
            assert_eq!(text.parse::<Sysctl>(), Err(SysctlError), "{text:?}");
        }
    }
}
