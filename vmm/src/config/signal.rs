// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Signals by name or number, as Linux on x86-64 counts them: the guest's, on any host.

use super::text_form::text_form;
use std::fmt;
use std::str::FromStr;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown signal `{0}`; expected a name (TERM, SIGTERM, RTMIN+n, RTMAX-n) or a number from 1 to 64")]
pub(crate) struct SignalError(String);

/// 1 to 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SignalNumber(u8);

/// The names of signals 1 to 31.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];
const SYNONYMS: [(&str, u8); 4] = [("IOT", 6), ("CLD", 17), ("POLL", 29), ("UNUSED", 31)];
/// The first real-time signal for programs: the C library reserves 32 and 33.
const RTMIN: u8 = 34;
const RTMAX: u8 = 64;

impl SignalNumber {
    pub(crate) const KILL: Self = Self(9);
    pub(crate) const TERM: Self = Self(15);
    /// SIGRTMIN+4, which systemd handles as a request to power off.
    pub(crate) const POWER_OFF: Self = Self(RTMIN + 4);

    #[must_use]
    pub(crate) fn get(self) -> u8 {
        self.0
    }
}

impl Default for SignalNumber {
    fn default() -> Self {
        Self::TERM
    }
}

impl FromStr for SignalNumber {
    type Err = SignalError;

    fn from_str(text: &str) -> Result<Self, SignalError> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let named = || (1..).zip(NAMES).find(|(_, known)| *known == name).map(|(number, _)| number);
        let synonym = || SYNONYMS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number);
        let real_time = || match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
            (Some(""), _) => Some(RTMIN),
            (_, Some("")) => Some(RTMAX),
            (Some(offset), _) => RTMIN.checked_add(offset.strip_prefix('+')?.parse().ok()?),
            (_, Some(offset)) => RTMAX.checked_sub(offset.strip_prefix('-')?.parse().ok()?),
            _ => None,
        };
        let numbered = || text.parse().ok();
        let found = named().or_else(synonym).or_else(numbered).filter(|number| (1..=RTMAX).contains(number));
        let found = found.or_else(|| real_time().filter(|number| (RTMIN..=RTMAX).contains(number)));
        found.map(Self).ok_or_else(|| SignalError(text.to_owned()))
    }
}

impl fmt::Display for SignalNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(usize::from(self.0) - 1) {
            Some(name) => write!(f, "SIG{name}"),
            None if self.0 >= RTMIN => write!(f, "SIGRTMIN+{}", self.0 - RTMIN),
            None => write!(f, "{}", self.0),
        }
    }
}

text_form!(SignalNumber);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_str_reads_the_names_and_numbers_of_linux() {
        let table = [
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigterm", 15),
            ("15", 15),
            ("usr2", 12),
            ("SYS", 31),
            ("CLD", 17),
            ("WINCH", 28),
            ("RTMIN", 34),
            ("SIGRTMIN+4", 38),
            ("RTMAX", 64),
            ("SIGRTMAX-1", 63),
            ("64", 64),
        ];
        for (text, number) in table {
            assert_eq!(text.parse(), Ok(SignalNumber(number)), "{text}");
        }
    }

    #[test]
    fn from_str_rejects_unknown_signals() {
        for text in ["", "0", "65", "99", "-1", "NOSUCH", "SIGSIGTERM", "RTMIN+31", "RTMAX-31", "RTMIN-1", "RTMIN+"] {
            assert_eq!(text.parse::<SignalNumber>(), Err(SignalError(text.into())), "{text}");
        }
    }

    #[test]
    fn from_str_reads_what_display_writes() {
        for number in 1..=64 {
            let signal = SignalNumber(number);
            assert_eq!(signal.to_string().parse(), Ok(signal));
        }
    }
}
