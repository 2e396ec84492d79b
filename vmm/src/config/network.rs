// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--network none`, `--network tap=NAME[,mac=M][,ip=A/P][,gw=G]` and the same with `fd=N`: a network device on an
//! existing tap, and its static configuration.

use super::text_form::text_form;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NetworkError {
    #[error(
        "unknown word `{0}`; expected `none`, or tap=NAME or fd=N with [,mac=MAC][,ip=ADDRESS/PREFIX][,gw=ADDRESS]"
    )]
    Word(String),
    #[error("more than one `{0}`")]
    Twice(String),
    #[error("expected either tap=NAME or fd=N")]
    NoTap,
    #[error("tap `{0}` is not an interface name: expected 1 to 15 characters without `/`, `:` and blanks")]
    Name(String),
    #[error("`{0}` is not {1}")]
    Value(String, &'static str),
    #[error("gateway {0} needs an address of the guest in the same network (ip=ADDRESS/PREFIX)")]
    Gateway(Ipv4Addr),
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a unicast MAC address like 02:00:00:00:00:01")]
pub(crate) struct MacError(String);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MacAddress([u8; 6]);

impl MacAddress {
    /// In the order of the wire.
    #[must_use]
    pub(crate) fn octets(self) -> [u8; 6] {
        self.0
    }

    /// A locally administered address.
    pub(crate) fn random() -> std::io::Result<Self> {
        let mut octets = [0; 6];
        rustix::rand::getrandom(&mut octets, rustix::rand::GetRandomFlags::empty())?;
        octets[0] = octets[0] & 0xfc | 0x02;
        Ok(Self(octets))
    }
}

impl FromStr for MacAddress {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let refused = || MacError(text.to_owned());
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(refused)?;
            let digits = part.bytes().all(|byte| byte.is_ascii_hexdigit());
            *octet = u8::from_str_radix(part, 16).ok().filter(|_| digits).ok_or_else(refused)?;
        }
        // Neither a group address nor all zeroes.
        if parts.next().is_some() || octets[0] & 1 != 0 || octets == [0; 6] {
            return Err(refused());
        }
        Ok(Self(octets))
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tap {
    /// Of an existing interface.
    Name(String),
    /// Inherited, of an open tap.
    Descriptor(i32),
}

/// One network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) tap: Tap,
    /// The guest's side.
    pub(crate) mac: Option<MacAddress>,
    /// The guest's IPv4 address and prefix length.
    pub(crate) address: Option<(Ipv4Addr, u8)>,
    /// IPv4 default route.
    pub(crate) gateway: Option<Ipv4Addr>,
}

/// One `--network`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    None,
    Interface(Interface),
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        if text == "none" {
            return Ok(Self::None);
        }
        let (mut tap, mut mac, mut address, mut gateway) = (None, None, None, None);
        for word in text.split(',') {
            let Some((key, value)) = word.split_once('=') else { return Err(NetworkError::Word(word.to_owned())) };
            let is_new = match key {
                "tap" => tap.replace(Tap::Name(check_name(value)?)).is_none(),
                "fd" => tap.replace(Tap::Descriptor(parse_descriptor(value)?)).is_none(),
                "mac" => mac.replace(value.parse().map_err(|_| invalid(value, "a MAC address"))?).is_none(),
                "ip" => address.replace(parse_address(value)?).is_none(),
                "gw" => gateway.replace(value.parse().map_err(|_| invalid(value, "an IPv4 address"))?).is_none(),
                _ => return Err(NetworkError::Word(word.to_owned())),
            };
            if !is_new {
                return Err(NetworkError::Twice(key.to_owned()));
            }
        }
        if let Some(gateway) = gateway
            && !address.is_some_and(|(own, prefix)| same_network(own, gateway, prefix))
        {
            return Err(NetworkError::Gateway(gateway));
        }
        Ok(Self::Interface(Interface { tap: tap.ok_or(NetworkError::NoTap)?, mac, address, gateway }))
    }
}

fn invalid(text: &str, what: &'static str) -> NetworkError {
    NetworkError::Value(text.to_owned(), what)
}

fn check_name(name: &str) -> Result<String, NetworkError> {
    let allowed = |c: char| c.is_ascii_graphic() && c != '/' && c != ':';
    match (1..16).contains(&name.len()) && name.chars().all(allowed) && name != "." && name != ".." {
        true => Ok(name.to_owned()),
        false => Err(NetworkError::Name(name.to_owned())),
    }
}

fn parse_descriptor(text: &str) -> Result<i32, NetworkError> {
    let number = text.parse().ok().filter(|number| *number > 2);
    number.ok_or_else(|| invalid(text, "a descriptor of a tap (0 to 2 are the standard streams)"))
}

fn parse_address(text: &str) -> Result<(Ipv4Addr, u8), NetworkError> {
    let parsed = text.split_once('/').and_then(|(address, prefix)| {
        let prefix = prefix.parse().ok().filter(|prefix| (1..=32).contains(prefix))?;
        Some((address.parse().ok()?, prefix))
    });
    parsed.ok_or_else(|| invalid(text, "an IPv4 address with a prefix length (10.0.0.2/24)"))
}

fn same_network(one: Ipv4Addr, other: Ipv4Addr, prefix: u8) -> bool {
    let network = |address: Ipv4Addr| address.to_bits() >> (32 - u32::from(prefix));
    network(one) == network(other)
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Interface(interface) = self else { return f.write_str("none") };
        match &interface.tap {
            Tap::Name(name) => write!(f, "tap={name}")?,
            Tap::Descriptor(number) => write!(f, "fd={number}")?,
        }
        interface.mac.map_or(Ok(()), |mac| write!(f, ",mac={mac}"))?;
        interface.address.map_or(Ok(()), |(address, prefix)| write!(f, ",ip={address}/{prefix}"))?;
        interface.gateway.map_or(Ok(()), |gateway| write!(f, ",gw={gateway}"))
    }
}

text_form!(MacAddress, Network);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_str_reads_what_display_writes() {
        for text in [
            "none",
            "tap=tap0",
            "fd=3",
            "tap=tap0,mac=02:00:00:00:00:01,ip=10.0.0.2/24,gw=10.0.0.1",
            "fd=9,ip=192.168.1.2/31,gw=192.168.1.3",
        ] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn from_str_rejects_a_network_by_its_word() {
        for (text, object) in [
            ("nonsense", "nonsense"),
            ("", "none"),
            ("tap=", "tap"),
            ("tap=a/b", "a/b"),
            ("tap=sixteen-letters-", "sixteen-letters-"),
            ("fd=1", "`1`"),
            ("fd=-4", "-4"),
            ("mac=02:00:00:00:00:01", "tap=NAME"),
            ("tap=a,fd=4", "fd"),
            ("tap=a,ip=10.0.0.2", "10.0.0.2"),
            ("tap=a,ip=10.0.0.2/0", "/0"),
            ("tap=a,ip=10.0.0.2/24,gw=10.0.1.1", "10.0.1.1"),
            ("tap=a,gw=10.0.1.1", "10.0.1.1"),
            ("tap=a,mtu=9000", "mtu=9000"),
        ] {
            let error = text.parse::<Network>().unwrap_err().to_string();
            assert!(error.contains(object), "{text}: {error}");
        }
    }

    #[test]
    fn mac_address_is_unicast() {
        assert_eq!("02:00:00:aB:00:01".parse::<MacAddress>().unwrap().octets(), [2, 0, 0, 0xab, 0, 1]);
        for text in ["00:11:22", "01:00:00:00:00:01", "00:00:00:00:00:00", "02:00:00:00:00:01:02", "+2:00:00:00:00:01"]
        {
            assert_eq!(text.parse::<MacAddress>(), Err(MacError(text.into())), "{text}");
        }
        let random = MacAddress::random().unwrap();
        assert_eq!(random.octets()[0] & 3, 2, "locally administered, unicast");
    }
}
