// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--cap-add NAME` and `--cap-drop NAME`: capabilities of the workload, by docker's rules.

use super::text_form::text_form;
use guest_protocol::attributes::Capabilities;
use std::fmt;
use std::str::FromStr;

/// By their numbers in `linux/capability.h`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];
const PREFIX: &str = "CAP_";
const ALL: &str = "ALL";

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected the name of a capability (NET_ADMIN, CAP_NET_ADMIN) or ALL")]
pub(crate) struct CapabilityError;

/// One, or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Capability {
    Number(u8),
    All,
}

impl Capability {
    /// A mask with its bit.
    #[must_use]
    pub(crate) fn mask(self) -> u64 {
        match self {
            Self::Number(number) => 1 << number,
            Self::All => (1 << NAMES.len()) - 1,
        }
    }
}

/// What `--cap-add` and `--cap-drop` leave of all capabilities.
#[must_use]
pub(crate) fn remaining(added: &[Capability], dropped: &[Capability]) -> Capabilities {
    let mask = |list: &[Capability]| list.iter().fold(0, |mask, capability| mask | capability.mask());
    let (added_mask, dropped_mask) = (mask(added), mask(dropped));
    if dropped_mask == 0 {
        return Capabilities::All;
    }
    let kept = Capability::All.mask() & !dropped_mask;
    // As in docker, all and a drop is all but that one.
    Capabilities::Bounded(if added.contains(&Capability::All) { kept } else { kept | added_mask })
}

impl FromStr for Capability {
    type Err = CapabilityError;

    fn from_str(text: &str) -> Result<Self, CapabilityError> {
        let name = text.to_ascii_uppercase();
        if name == ALL {
            return Ok(Self::All);
        }
        let name = name.strip_prefix(PREFIX).unwrap_or(&name);
        let number = NAMES.iter().position(|other| *other == name).ok_or(CapabilityError)?;
        Ok(Self::Number(u8::try_from(number).expect("there are 41")))
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{PREFIX}{}", NAMES[usize::from(*number)]),
            Self::All => f.write_str(ALL),
        }
    }
}

text_form!(Capability);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_str_takes_names_with_and_without_the_prefix() {
        for (text, number, shown) in [
            ("CAP_NET_ADMIN", 12, "CAP_NET_ADMIN"),
            ("net_admin", 12, "CAP_NET_ADMIN"),
            ("checkpoint_restore", 40, "CAP_CHECKPOINT_RESTORE"),
        ] {
            let capability: Capability = text.parse().unwrap();
            assert_eq!((capability, capability.to_string().as_str()), (Capability::Number(number), shown));
        }
        assert_eq!("all".parse(), Ok(Capability::All));
        for text in ["", "CAP_", "CAP_ALL", "NET-ADMIN", "12"] {
            assert_eq!(text.parse::<Capability>(), Err(CapabilityError), "{text:?}");
        }
    }

    #[test]
    fn remaining_follows_dockers_rules() {
        let list = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Vec<Capability>>();
        let left = |added: &[&str], dropped: &[&str]| remaining(&list(added), &list(dropped));
        assert_eq!(left(&["SYS_ADMIN"], &[]), Capabilities::All);
        assert_eq!(left(&["CHOWN", "KILL"], &["ALL"]), Capabilities::Bounded(1 | 1 << 5));
        assert_eq!(left(&[], &["KILL"]), Capabilities::Bounded((1 << 41) - 1 - (1 << 5)));
        assert_eq!(left(&["ALL"], &["KILL"]), Capabilities::Bounded((1 << 41) - 1 - (1 << 5)));
    }
}
