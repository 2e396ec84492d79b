// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--sysctl NAME=VALUE`: a kernel parameter of the guest's network.

use super::text_form::text_form;
use std::fmt;
use std::str::FromStr;

const MAX_BYTES: usize = 4095;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected net.NAME=VALUE, a parameter of the network (net.ipv4.ip_forward=1)")]
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
        let named = name.starts_with("net.") && name.split('.').all(part);
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
    fn from_str_takes_parameters_of_the_network_only() {
        for text in ["net.ipv4.ip_forward=1", "net.ipv4.ip_local_port_range=1024 65535"] {
            assert_eq!(text.parse::<Sysctl>().unwrap().to_string(), text);
        }
        for text in
            ["", "net.ipv4.ip_forward", "kernel.core_pattern=|x", "net.x=", "net..x=1", "net.../x=1", "net.x=1\n"]
        {
            assert_eq!(text.parse::<Sysctl>(), Err(SysctlError), "{text:?}");
        }
    }
}
