// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--add-host NAME:ADDRESS`: a line of the workload's `/etc/hosts`, in docker's form.

use super::text_form::text_form;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// As docker spells it.
const HOST_GATEWAY: &str = "host-gateway";
/// Length of a domain name.
const MAX_NAME_BYTES: usize = 253;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected NAME:ADDRESS (db:10.0.0.2, db:[fd00::2]), where ADDRESS may be `{HOST_GATEWAY}`")]
pub(crate) struct HostEntryError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostAddress {
    Address(IpAddr),
    /// The address at which the guest reaches the host.
    Host,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostEntry {
    pub(crate) name: String,
    pub(crate) address: HostAddress,
}

impl FromStr for HostEntry {
    type Err = HostEntryError;

    fn from_str(text: &str) -> Result<Self, HostEntryError> {
        let (name, address) = text.split_once(['=', ':']).ok_or(HostEntryError)?;
        let graphic = name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if !(1..=MAX_NAME_BYTES).contains(&name.len()) || !graphic {
            return Err(HostEntryError);
        }
        let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
        let address = match bare {
            HOST_GATEWAY => HostAddress::Host,
            _ => HostAddress::Address(bare.parse().map_err(|_| HostEntryError)?),
        };
        Ok(Self { name: name.to_owned(), address })
    }
}

impl fmt::Display for HostEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            HostAddress::Address(address) => write!(f, "{}:{address}", self.name),
            HostAddress::Host => write!(f, "{}:{HOST_GATEWAY}", self.name),
        }
    }
}

text_form!(HostEntry);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_str_reads_dockers_forms() {
        for (text, shown) in [
            ("db:10.0.0.2", "db:10.0.0.2"),
            ("db=10.0.0.2", "db:10.0.0.2"),
            ("db:fd00::2", "db:fd00::2"),
            ("db:[fd00::2]", "db:fd00::2"),
            ("host.docker.internal:host-gateway", "host.docker.internal:host-gateway"),
        ] {
            assert_eq!(text.parse::<HostEntry>().unwrap().to_string(), shown);
        }
        for text in ["", "db", "db:", ":10.0.0.2", "db:10.0.0", "a b:10.0.0.2", "a\nb:10.0.0.2", "#:10.0.0.2"] {
            assert_eq!(text.parse::<HostEntry>(), Err(HostEntryError), "{text:?}");
        }
    }
}
