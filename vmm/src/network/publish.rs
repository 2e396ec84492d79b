// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The ports that `-p` and `-P` publish, each with a port of the host that is free now.

use crate::config::publish::{Protocol, Publish};
use crate::config::request::Request;
use crate::state::published_port::PublishedPort;
use std::io::Result as IoResult;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};

#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishError {
    #[error("cannot publish {0}")]
    Bind(PublishedPort, #[source] std::io::Error),
    #[error("cannot publish {0}: ports below {1} need root (sysctl net.ipv4.ip_unprivileged_port_start)")]
    Privileged(PublishedPort, u16),
    #[error("cannot publish {0}: --publish gives it twice")]
    Twice(PublishedPort),
    #[error("cannot publish {0} of the image's ExposedPorts: not a port")]
    Exposed(String),
}

/// A socket that keeps a port from being chosen twice.
enum Reserved {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

/// Checks that every port of the host is free, and chooses those that were not given. `exposed` are the image's ExposedPorts.
///
/// Nothing holds the ports until the network's process binds them: another process can take one meanwhile, and that process
/// reports it then.
pub(super) fn published(request: &Request, exposed: &[String]) -> Result<Vec<PublishedPort>, PublishError> {
    let mut wanted = request.publish.clone();
    if request.publish_all {
        for port in exposed {
            let publish: Publish = port.parse().map_err(|_| PublishError::Exposed(port.clone()))?;
            let is_given = |other: &Publish| other.guest == publish.guest && other.protocol == publish.protocol;
            if !wanted.iter().any(is_given) {
                wanted.push(publish);
            }
        }
    }
    let mut ports = Vec::<PublishedPort>::new();
    let mut chosen = Vec::new();
    for Publish { ip, host, guest, protocol } in wanted {
        for (index, port) in guest.enumerate() {
            let given = host.as_ref().map_or(0, |host| host.start() + index as u16);
            let host_ip = ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
            let mut new = PublishedPort { host_ip, host_port: given, port, protocol };
            if given != 0 && ports.iter().any(|other| overlap(other, &new)) {
                return Err(PublishError::Twice(new));
            }
            let (reserved, number) = reserve(&new, ip.is_none()).map_err(|source| failure(new, source))?;
            new.host_port = number;
            if given == 0 {
                chosen.push(reserved);
            }
            ports.push(new);
        }
    }
    Ok(ports)
}

fn overlap(one: &PublishedPort, other: &PublishedPort) -> bool {
    let same_address = one.host_ip == other.host_ip || one.host_ip.is_unspecified() || other.host_ip.is_unspecified();
    one.host_port == other.host_port && one.protocol == other.protocol && same_address
}

fn failure(port: PublishedPort, source: std::io::Error) -> PublishError {
    match first_unprivileged_port() {
        first if source.kind() == std::io::ErrorKind::PermissionDenied && port.host_port < first => {
            PublishError::Privileged(port, first)
        }
        _ => PublishError::Bind(port, source),
    }
}

/// From this on every user may bind ports.
fn first_unprivileged_port() -> u16 {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    text.trim().parse().unwrap_or(1024)
}

/// Binds the host's port, on both families if `every` address is meant.
fn reserve(port: &PublishedPort, every: bool) -> IoResult<(Reserved, u16)> {
    let bound = bind(port.protocol, port.host_ip, port.host_port)?;
    let number = match &bound {
        Reserved::Tcp(socket) => socket.local_addr()?.port(),
        Reserved::Udp(socket) => socket.local_addr()?.port(),
    };
    if every {
        // ::1 stands for every IPv6 address: bound to [::], a socket would take the IPv4 port, too.
        match bind(port.protocol, Ipv6Addr::LOCALHOST.into(), number) {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => return Err(error),
            // The host has no IPv6.
            _ => {}
        }
    }
    Ok((bound, number))
}

fn bind(protocol: Protocol, ip: IpAddr, port: u16) -> IoResult<Reserved> {
    Ok(match protocol {
        Protocol::Tcp => Reserved::Tcp(TcpListener::bind((ip, port))?),
        Protocol::Udp => Reserved::Udp(UdpSocket::bind((ip, port))?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(ports: &[&str], all: bool) -> Request {
        Request {
            publish: ports.iter().map(|text| text.parse().unwrap()).collect(),
            publish_all: all,
            ..Request::default()
        }
    }

    #[test]
    fn ports_that_are_not_given_are_free_and_differ() {
        let ports = published(&request(&["127.0.0.1::80-82", "127.0.0.1::53/udp"], false), &[]).unwrap();
        assert_eq!(ports.iter().map(|port| port.port).collect::<Vec<_>>(), [80, 81, 82, 53]);
        let mut numbers: Vec<u16> = ports[..3].iter().map(|port| port.host_port).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert!(numbers.len() == 3 && numbers[0] > 0, "{ports:?}");
    }

    #[test]
    fn port_in_use_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let text = format!("127.0.0.1:{}:80", taken.local_addr().unwrap().port());
        let error = published(&request(&[&text], false), &[]).unwrap_err();
        assert!(matches!(&error, PublishError::Bind(_, source) if source.kind() == std::io::ErrorKind::AddrInUse));
        assert!(error.to_string().contains(&text.replace(":80", "->80/tcp")), "{error}");
        drop(taken);
        let twice = published(&request(&[&text, &text], false), &[]).unwrap_err();
        assert!(matches!(twice, PublishError::Twice(_)), "{twice}");
    }

    #[test]
    fn publish_all_adds_the_exposed_ports_that_are_not_given() {
        let exposed = ["80/tcp", "53/udp"].map(str::to_owned);
        let ports = published(&request(&["127.0.0.1::80"], true), &exposed).unwrap();
        assert_eq!(ports.iter().map(PublishedPort::guest).collect::<Vec<_>>(), exposed);
        assert!(published(&request(&[], false), &exposed).unwrap().is_empty());
        assert!(published(&request(&[], true), &["x".to_owned()]).is_err());
    }
}
