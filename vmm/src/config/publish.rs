// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `-p [IP:][HOST:]GUEST[/tcp|udp]`: ports of the guest that the host publishes. Errors are worded as docker's.

use super::text_form::text_form;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PublishError {
    #[error("no port specified: {0}; expected [IP:][HOST:]GUEST[-GUEST][/tcp|udp]")]
    NoPort(String),
    #[error("invalid containerPort: {0}")]
    Guest(String),
    #[error("invalid hostPort: {0}")]
    Host(String),
    #[error("invalid IP address: {0}")]
    Address(String),
    #[error("invalid proto: {0}")]
    Protocol(String),
    #[error("invalid ranges specified for container and host ports: {0} and {1}")]
    Ranges(String, String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    Tcp,
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl FromStr for Protocol {
    type Err = PublishError;

    fn from_str(text: &str) -> Result<Self, PublishError> {
        match text {
            _ if text.eq_ignore_ascii_case("tcp") => Ok(Self::Tcp),
            _ if text.eq_ignore_ascii_case("udp") => Ok(Self::Udp),
            _ => Err(PublishError::Protocol(text.to_owned())),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Publish {
    /// Every address of the host without it.
    pub(crate) ip: Option<IpAddr>,
    /// As many as `guest`; without it a free one each.
    pub(crate) host: Option<RangeInclusive<u16>>,
    pub(crate) guest: RangeInclusive<u16>,
    pub(crate) protocol: Protocol,
}

impl FromStr for Publish {
    type Err = PublishError;

    fn from_str(text: &str) -> Result<Self, PublishError> {
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = protocol.parse()?;
        let (rest, guest) = ports.rsplit_once(':').map_or((None, ports), |(rest, guest)| (Some(rest), guest));
        if guest.is_empty() {
            return Err(PublishError::NoPort(text.to_owned()));
        }
        let guest_range = range(guest).filter(|range| *range.start() > 0);
        let guest_range = guest_range.ok_or_else(|| PublishError::Guest(guest.to_owned()))?;
        let (ip, host) = match rest {
            None => ("", ""),
            Some(rest) => rest.rsplit_once(':').unwrap_or(("", rest)),
        };
        let ip = match ip.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(ip) {
            "" => None,
            ip => Some(ip.parse().map_err(|_| PublishError::Address(ip.to_owned()))?),
        };
        let host_range = match host {
            "" | "0" => None,
            _ => {
                let range = range(host).filter(|range| *range.start() > 0);
                Some(range.ok_or_else(|| PublishError::Host(host.to_owned()))?)
            }
        };
        if host_range.as_ref().is_some_and(|host| host.len() != guest_range.len()) {
            return Err(PublishError::Ranges(guest.to_owned(), host.to_owned()));
        }
        Ok(Self { ip, host: host_range, guest: guest_range, protocol })
    }
}

/// `80` or `80-89`.
fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let port = |text: &str| text.parse::<u16>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some(port(first)?..=port(last)?).filter(|range| !range.is_empty())
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ip, host, guest, protocol } = self;
        match ip {
            Some(IpAddr::V4(ip)) => write!(f, "{ip}:")?,
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:")?,
            None => {}
        }
        match host {
            Some(host) => write!(f, "{}:", Range(host))?,
            None if ip.is_some() => f.write_str(":")?,
            None => {}
        }
        write!(f, "{}/{protocol}", Range(guest))
    }
}

struct Range<'a>(&'a RangeInclusive<u16>);

impl fmt::Display for Range<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.0.start(), self.0.end());
        if first == last { write!(f, "{first}") } else { write!(f, "{first}-{last}") }
    }
}

text_form!(Publish);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_str_reads_dockers_forms() {
        for (text, shown) in [
            ("80", "80/tcp"),
            ("0:80", "80/tcp"),
            ("8080:80", "8080:80/tcp"),
            ("8080-8089:80-89/udp", "8080-8089:80-89/udp"),
            ("127.0.0.1:8080:80", "127.0.0.1:8080:80/tcp"),
            ("127.0.0.1::80/UDP", "127.0.0.1::80/udp"),
            ("[::1]:8080:80", "[::1]:8080:80/tcp"),
            ("[::1]::80", "[::1]::80/tcp"),
        ] {
            let publish: Publish = text.parse().unwrap();
            assert_eq!(publish.to_string(), shown);
            assert_eq!(shown.parse::<Publish>().unwrap(), publish);
        }
    }

    #[test]
    fn from_str_rejects_in_dockers_words() {
        for (text, object) in [
            ("", "no port specified"),
            ("8080:", "no port specified"),
            ("x", "containerPort: x"),
            ("8080:0", "containerPort: 0"),
            ("8080:65536", "containerPort: 65536"),
            ("x:80", "hostPort: x"),
            ("+8:80", "hostPort: +8"),
            ("89-80:80-89", "hostPort: 89-80"),
            ("1.2.3:8080:80", "IP address: 1.2.3"),
            ("80/sctp", "proto: sctp"),
            ("8080-8081:80-82", "80-82 and 8080-8081"),
            ("8080-8089:80", "80 and 8080-8089"),
        ] {
            let error = text.parse::<Publish>().unwrap_err().to_string();
            assert!(error.contains(object), "{text}: {error}");
        }
    }
}
