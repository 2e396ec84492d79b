// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--dns-search` and `--dns-option`: one word of `/etc/resolv.conf`.

use super::text_form::text_form;
use std::fmt;
use std::str::FromStr;

/// Length of a domain name.
const MAX_BYTES: usize = 253;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 1 to {MAX_BYTES} printable ASCII characters without blanks")]
pub(crate) struct DnsWordError;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DnsWord(String);

impl DnsWord {
    #[must_use]
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DnsWord {
    type Err = DnsWordError;

    fn from_str(text: &str) -> Result<Self, DnsWordError> {
        let valid = (1..=MAX_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        if valid { Ok(Self(text.to_owned())) } else { Err(DnsWordError) }
    }
}

impl fmt::Display for DnsWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_form!(DnsWord);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_str_rejects_what_would_be_two_words_or_lines() {
        assert_eq!("ndots:2".parse::<DnsWord>().unwrap().as_str(), "ndots:2");
        for text in ["", "two words", "a\nnameserver 1.1.1.1", "ä", &"x".repeat(254)] {
            assert_eq!(text.parse::<DnsWord>(), Err(DnsWordError), "{text:?}");
        }
    }
}
