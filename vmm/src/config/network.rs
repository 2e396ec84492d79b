// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--network`: what a network device is connected to, and the guest's side of it.

use super::mac_address::MacAddress;
use super::rate::{self, RateError};
use super::text_form::text_form;
use devices::rate_limit::RateLimits;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NetworkError {
    #[error(
        "unknown word `{0}`; expected `none`, or one of `user`, `bridge[=NAME]`, `adopt[=IFNAME]`, `tap=NAME`, `fd=N` \
         and `socket=PATH`, with [,mac=MAC][,ip=ADDRESS/PREFIX|dhcp][,gw=ADDRESS][,mtu=BYTES][,name=IFNAME] \
         [,rx-bps=RATE][,rx-pps=N][,tx-bps=RATE][,tx-pps=N]"
    )]
    Word(String),
    #[error("more than one {0}")]
    Twice(&'static str),
    #[error("{0} contradicts {1}: an interface is connected to one network")]
    TwoKinds(String, String),
    #[error("expected one of `user`, `bridge`, `adopt`, `tap=NAME`, `fd=N` and `socket=PATH` before its options")]
    NoKind,
    #[error(
        "`{0}` has no interface name: expected 1 to 15 characters without `/`, `:`, `%` and blanks, and not `lo`, \
         `all` or `default`"
    )]
    Name(String),
    #[error(
        "`{0}` has no name for a bridge: expected 1 to 15 letters, digits, `_`, `.` and `-`, and a letter or digit first"
    )]
    BridgeName(String),
    #[error("`{0}` is not {1}")]
    Value(String, &'static str),
    #[error("gateway {0} needs an address of the guest in the same network (ip=ADDRESS/PREFIX)")]
    Gateway(IpAddr),
    #[error("ip=dhcp needs a network with a DHCP server: tap=NAME, fd=N or socket=PATH")]
    Dhcp,
    #[error("mtu={0}: IPv6 needs at least {MIN_IPV6_MTU}")]
    Ipv6Mtu(u16),
    #[error(transparent)]
    Rate(#[from] RateError),
}

/// Of `struct virtio_net_config`: the least that a device may give, Virtio 1.3, 5.1.4.1.
const MIN_MTU: u16 = 68;
const MIN_IPV6_MTU: u16 = 1280;
/// `sun_path` holds 108 bytes with the terminating zero byte.
const MAX_SOCKET_PATH: usize = 107;

/// What an interface is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NetworkKind {
    /// The host's network through an unprivileged process (passt).
    User,
    /// A bridge of the host; without a name the default one.
    Bridge(Option<String>),
    /// An interface of the network namespace that coracle runs in; without a name the only one.
    Adopt(Option<String>),
    /// An existing tap or macvtap.
    Tap(String),
    /// An inherited descriptor of an open tap.
    Descriptor(i32),
    /// A Unix stream socket that carries frames behind their length.
    Socket(PathBuf),
}

impl NetworkKind {
    /// Whether `-p` and `-P` apply to it.
    #[must_use]
    pub(crate) fn publishes_ports(&self) -> bool {
        matches!(self, Self::User | Self::Bridge(_))
    }
}

/// `ip=` for IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ipv4Setting {
    Dhcp,
    /// Address and prefix length.
    Static(Ipv4Addr, u8),
}

/// One network device. What is absent is chosen by the kind of network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) kind: NetworkKind,
    /// The address of the interface in the guest.
    pub(crate) mac: Option<MacAddress>,
    pub(crate) ipv4: Option<Ipv4Setting>,
    /// Address and prefix length.
    pub(crate) ipv6: Option<(Ipv6Addr, u8)>,
    /// IPv4 default route.
    pub(crate) gateway4: Option<Ipv4Addr>,
    /// IPv6 default route.
    pub(crate) gateway6: Option<Ipv6Addr>,
    pub(crate) mtu: Option<u16>,
    /// The interface's name in the guest.
    pub(crate) name: Option<String>,
    /// Of what the guest receives and sends.
    pub(crate) limits: RateLimits,
}

impl Interface {
    /// An interface of `kind` with nothing else given.
    #[must_use]
    pub(crate) fn new(kind: NetworkKind) -> Self {
        Self {
            kind,
            mac: None,
            ipv4: None,
            ipv6: None,
            gateway4: None,
            gateway6: None,
            mtu: None,
            name: None,
            limits: RateLimits::default(),
        }
    }

    /// Checks what depends on several words.
    pub(crate) fn check(&self) -> Result<(), NetworkError> {
        use NetworkKind::{Descriptor, Socket, Tap};
        if self.ipv4 == Some(Ipv4Setting::Dhcp) && !matches!(self.kind, Tap(_) | Descriptor(_) | Socket(_)) {
            return Err(NetworkError::Dhcp);
        }
        let reaches4 = |gateway| match self.ipv4 {
            Some(Ipv4Setting::Static(own, prefix)) => same_network(own.into(), IpAddr::V4(gateway), prefix),
            Some(Ipv4Setting::Dhcp) | None => false,
        };
        if let Some(gateway) = self.gateway4.filter(|gateway| !reaches4(*gateway)) {
            return Err(NetworkError::Gateway(gateway.into()));
        }
        let reaches6 = |gateway: Ipv6Addr| {
            let same = |(own, prefix): (Ipv6Addr, u8)| same_network(own.into(), gateway.into(), prefix);
            self.ipv6.is_some_and(|own| gateway.is_unicast_link_local() || same(own))
        };
        if let Some(gateway) = self.gateway6.filter(|gateway| !reaches6(*gateway)) {
            return Err(NetworkError::Gateway(gateway.into()));
        }
        match self.mtu {
            Some(mtu) if mtu < MIN_IPV6_MTU && self.ipv6.is_some() => Err(NetworkError::Ipv6Mtu(mtu)),
            _ => Ok(()),
        }
    }
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
        let mut kind: Option<NetworkKind> = None;
        // Replaced by `kind` at the end.
        let mut interface = Interface::new(NetworkKind::User);
        for word in text.split(',') {
            if let Some(new) = parse_kind(word)? {
                match kind {
                    Some(kind) => return Err(NetworkError::TwoKinds(kind.to_string(), new.to_string())),
                    None => kind = Some(new),
                }
                continue;
            }
            let unknown = || NetworkError::Word(word.to_owned());
            let (key, value) = word.split_once('=').ok_or_else(unknown)?;
            match key {
                "mac" => {
                    set_once(&mut interface.mac, value.parse().map_err(|_| invalid(value, "a MAC address"))?, "`mac`")?;
                }
                "ip" => match parse_address(value)? {
                    GivenAddress::V4(setting) => set_once(&mut interface.ipv4, setting, "`ip` for IPv4")?,
                    GivenAddress::V6(address, prefix) => {
                        set_once(&mut interface.ipv6, (address, prefix), "`ip` for IPv6")?;
                    }
                },
                "gw" => match value.parse().map_err(|_| invalid(value, "an IP address"))? {
                    IpAddr::V4(gateway) => set_once(&mut interface.gateway4, gateway, "`gw` for IPv4")?,
                    IpAddr::V6(gateway) => set_once(&mut interface.gateway6, gateway, "`gw` for IPv6")?,
                },
                "mtu" => set_once(&mut interface.mtu, parse_mtu(value)?, "`mtu`")?,
                "name" => set_once(&mut interface.name, check_name(word, value)?, "`name`")?,
                _ if rate::NETWORK.parse(&mut interface.limits, key, value)? => {}
                _ => return Err(unknown()),
            }
        }
        interface.kind = kind.ok_or(NetworkError::NoKind)?;
        interface.check()?;
        Ok(Self::Interface(interface))
    }
}

/// Returns `None` for a word that names no kind of network.
fn parse_kind(word: &str) -> Result<Option<NetworkKind>, NetworkError> {
    let (key, value) = word.split_once('=').map_or((word, None), |(key, value)| (key, Some(value)));
    let kind = match (key, value) {
        ("user", None) => NetworkKind::User,
        ("bridge", value) => NetworkKind::Bridge(value.map(|value| check_bridge_name(word, value)).transpose()?),
        ("adopt", value) => NetworkKind::Adopt(value.map(|value| check_name(word, value)).transpose()?),
        ("tap", Some(value)) => NetworkKind::Tap(check_name(word, value)?),
        ("fd", Some(value)) => NetworkKind::Descriptor(parse_descriptor(value)?),
        ("socket", Some(value)) => NetworkKind::Socket(parse_socket(value)?),
        _ => return Ok(None),
    };
    Ok(Some(kind))
}

fn set_once<T>(option: &mut Option<T>, value: T, key: &'static str) -> Result<(), NetworkError> {
    if option.replace(value).is_some() { Err(NetworkError::Twice(key)) } else { Ok(()) }
}

fn invalid(text: &str, what: &'static str) -> NetworkError {
    NetworkError::Value(text.to_owned(), what)
}

/// The kernel's rules for names; `%` is its placeholder for a number, and three names are taken: by loopback, and by the
/// directories of all interfaces under `/proc/sys/net`.
fn check_name(word: &str, name: &str) -> Result<String, NetworkError> {
    let allowed = |c: char| c.is_ascii_graphic() && c != '/' && c != ':' && c != '%';
    let taken = [".", "..", "lo", "all", "default"].contains(&name);
    match (1..16).contains(&name.len()) && name.chars().all(allowed) && !taken {
        true => Ok(name.to_owned()),
        false => Err(NetworkError::Name(word.to_owned())),
    }
}

/// The name of a bridge that may be made, and that is a word in rules of nftables.
fn check_bridge_name(word: &str, name: &str) -> Result<String, NetworkError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    match name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(allowed) {
        true => check_name(word, name),
        false => Err(NetworkError::BridgeName(word.to_owned())),
    }
}

fn parse_descriptor(text: &str) -> Result<i32, NetworkError> {
    let number = text.parse().ok().filter(|number| *number > 2);
    number.ok_or_else(|| invalid(text, "a descriptor of a tap (0 to 2 are the standard streams)"))
}

fn parse_socket(text: &str) -> Result<PathBuf, NetworkError> {
    match (1..=MAX_SOCKET_PATH).contains(&text.len()) && !text.contains('\0') {
        true => Ok(text.into()),
        false => Err(invalid(text, "a path of a Unix socket (1 to 107 bytes)")),
    }
}

fn parse_mtu(text: &str) -> Result<u16, NetworkError> {
    let mtu = text.parse().ok().filter(|mtu| *mtu >= MIN_MTU);
    mtu.ok_or_else(|| invalid(text, "an MTU between 68 and 65535"))
}

enum GivenAddress {
    V4(Ipv4Setting),
    V6(Ipv6Addr, u8),
}

fn parse_address(text: &str) -> Result<GivenAddress, NetworkError> {
    if text == "dhcp" {
        return Ok(GivenAddress::V4(Ipv4Setting::Dhcp));
    }
    let parsed = text.split_once('/').and_then(|(address, prefix)| {
        let prefix = prefix.parse().ok()?;
        match address.parse().ok()? {
            IpAddr::V4(address) if is_host4(address) && (1..=32).contains(&prefix) => {
                Some(GivenAddress::V4(Ipv4Setting::Static(address, prefix)))
            }
            IpAddr::V6(address) if is_host6(address) && (1..=128).contains(&prefix) => {
                Some(GivenAddress::V6(address, prefix))
            }
            _ => None,
        }
    });
    parsed.ok_or_else(|| invalid(text, "`dhcp` or a unicast address with a prefix length (10.0.0.2/24, fd00::2/64)"))
}

fn is_host4(address: Ipv4Addr) -> bool {
    !(address.is_unspecified() || address.is_multicast() || address.is_broadcast() || address.is_loopback())
}

fn is_host6(address: Ipv6Addr) -> bool {
    !(address.is_unspecified() || address.is_multicast() || address.is_loopback())
}

/// Whether two addresses of one family have the same first `prefix` bits.
fn same_network(one: IpAddr, other: IpAddr, prefix: u8) -> bool {
    let prefix = u32::from(prefix);
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros() >= prefix,
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros() >= prefix,
        _ => false,
    }
}

impl fmt::Display for NetworkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User => f.write_str("user"),
            Self::Bridge(None) => f.write_str("bridge"),
            Self::Bridge(Some(name)) => write!(f, "bridge={name}"),
            Self::Adopt(None) => f.write_str("adopt"),
            Self::Adopt(Some(name)) => write!(f, "adopt={name}"),
            Self::Tap(name) => write!(f, "tap={name}"),
            Self::Descriptor(number) => write!(f, "fd={number}"),
            Self::Socket(path) => write!(f, "socket={}", path.display()),
        }
    }
}

impl fmt::Display for Ipv4Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dhcp => f.write_str("dhcp"),
            Self::Static(address, prefix) => write!(f, "{address}/{prefix}"),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Interface(interface) = self else { return f.write_str("none") };
        let Interface { kind, mac, ipv4, ipv6, gateway4, gateway6, mtu, name, limits } = interface;
        write!(f, "{kind}")?;
        mac.iter().try_for_each(|mac| write!(f, ",mac={mac}"))?;
        ipv4.iter().try_for_each(|setting| write!(f, ",ip={setting}"))?;
        ipv6.iter().try_for_each(|(address, prefix)| write!(f, ",ip={address}/{prefix}"))?;
        gateway4.iter().try_for_each(|gateway| write!(f, ",gw={gateway}"))?;
        gateway6.iter().try_for_each(|gateway| write!(f, ",gw={gateway}"))?;
        mtu.iter().try_for_each(|mtu| write!(f, ",mtu={mtu}"))?;
        name.iter().try_for_each(|name| write!(f, ",name={name}"))?;
        rate::NETWORK.write(*limits, f)
    }
}

text_form!(Network);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_str_reads_what_display_writes() {
        for text in [
            "none",
            "user",
            "bridge",
            "bridge=lan",
            "adopt",
            "adopt=eth0,name=eth1",
            "tap=tap0",
            "fd=3",
            "socket=/run/a=b.sock,ip=dhcp",
            "user,name=net0,rx-bps=10m,rx-pps=5000,tx-bps=1000,tx-pps=1",
            "user,ip=10.0.2.100/24,gw=10.0.2.2,mtu=1500",
            "tap=tap0,mac=02:00:00:00:00:01,ip=10.0.0.2/24,gw=10.0.0.1",
            "fd=9,ip=192.168.1.2/31,gw=192.168.1.3",
            "tap=a,ip=10.0.0.2/24,ip=fd00::2/64,gw=10.0.0.1,gw=fd00::1,mtu=9000,name=net0",
            "tap=a,ip=fd00::2/128,gw=fe80::1",
        ] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn from_str_rejects_a_network_by_its_word() {
        for (text, object) in [
            ("nonsense", "nonsense"),
            ("", "none"),
            ("none,mtu=1500", "none"),
            ("user=x", "user=x"),
            ("tap", "tap"),
            ("tap=", "tap"),
            ("bridge=", "name for a bridge"),
            ("bridge=a\"b", "a\"b"),
            ("bridge=-a", "-a"),
            ("bridge=a*", "a*"),
            ("bridge=all", "all"),
            ("bridge=sixteen-letters-", "sixteen-letters-"),
            ("adopt=lo", "lo"),
            ("tap=a/b", "a/b"),
            ("tap=a%d", "a%d"),
            ("tap=sixteen-letters-", "sixteen-letters-"),
            ("socket=", "Unix socket"),
            ("fd=1", "`1`"),
            ("fd=-4", "-4"),
            ("mac=02:00:00:00:00:01", "tap=NAME"),
            ("tap=a,fd=4", "fd"),
            ("user,user", "user"),
            ("tap=a,ip=10.0.0.2", "10.0.0.2"),
            ("tap=a,ip=10.0.0.2/0", "/0"),
            ("tap=a,ip=10.0.0.2/33", "/33"),
            ("tap=a,ip=fd00::1/129", "/129"),
            ("tap=a,ip=ff02::1/64", "ff02::1"),
            ("tap=a,ip=127.0.0.1/8", "127.0.0.1"),
            ("tap=a,ip=10.0.0.2/24,ip=10.0.0.3/24", "IPv4"),
            ("tap=a,ip=fd00::2/64,ip=fd00::3/64", "IPv6"),
            ("tap=a,ip=10.0.0.2/24,gw=10.0.1.1", "10.0.1.1"),
            ("tap=a,gw=10.0.1.1", "10.0.1.1"),
            ("tap=a,ip=dhcp,gw=10.0.1.1", "10.0.1.1"),
            ("tap=a,ip=10.0.0.2/24,gw=fe80::1", "fe80::1"),
            ("tap=a,ip=fd00::2/64,gw=fd01::1", "fd01::1"),
            ("user,ip=dhcp", "DHCP"),
            ("tap=a,mtu=67", "67"),
            ("tap=a,mtu=65536", "65536"),
            ("tap=a,mtu=1279,ip=fd00::2/64", "1280"),
            ("tap=a,name=default", "default"),
            ("tap=a,mtu=1500,mtu=1500", "mtu"),
        ] {
            let error = text.parse::<Network>().unwrap_err().to_string();
            assert!(error.contains(object), "{text}: {error}");
        }
    }
}
