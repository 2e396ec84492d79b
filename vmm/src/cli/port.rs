// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `port`: where the host publishes a machine's ports, from its run directory alone.

use super::machines::{self, MachineArgument, print};
use crate::config::publish::{Protocol, PublishError};
use crate::run::failure::Failure;
use crate::state::end::EndReason;
use crate::state::published_port::PublishedPort;
use clap::Args;
use std::num::NonZeroU16;
use std::str::FromStr;

/// Show where the host publishes a machine's ports
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coracle port web
  coracle port web 80/tcp")]
pub(super) struct PortArguments {
    #[command(flatten)]
    machine: MachineArgument,
    /// Port of the guest, PORT[/tcp|udp]
    #[arg(value_name = "PORT")]
    port: Option<GuestPort>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct GuestPort(NonZeroU16, Protocol);

impl FromStr for GuestPort {
    type Err = PublishError;

    fn from_str(text: &str) -> Result<Self, PublishError> {
        let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        Ok(Self(port.parse().map_err(|_| PublishError::Guest(port.to_owned()))?, protocol.parse()?))
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{name}: no public port '{port}/{protocol}' published")]
struct NotPublishedError {
    name: String,
    port: NonZeroU16,
    protocol: Protocol,
}

/// Prints the ports and returns the exit status.
pub(super) fn port(arguments: &PortArguments) -> u8 {
    machines::status(list(arguments).map(|text| print(&text)))
}

fn list(arguments: &PortArguments) -> Result<String, Failure> {
    let machine = arguments.machine.find()?;
    let published = machine.status.as_ref().filter(|status| !status.state.is_end());
    let published = published.map_or(&[][..], |status| &status.published);
    let Some(GuestPort(port, protocol)) = arguments.port else { return Ok(lines(published)) };
    let is_asked = |other: &&PublishedPort| other.port == port.get() && other.protocol == protocol;
    let found: String = published.iter().filter(is_asked).map(|port| format!("{}\n", port.host())).collect();
    if found.is_empty() {
        return Err(Failure::new(EndReason::ConfigError, NotPublishedError { name: machine.name, port, protocol }));
    }
    Ok(found)
}

/// As docker prints them.
fn lines(published: &[PublishedPort]) -> String {
    published.iter().map(|port| format!("{} -> {}\n", port.guest(), port.host())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_dockers() {
        let port = |ip: &str, host_port, port, protocol| PublishedPort {
            host_ip: ip.parse().unwrap(),
            host_port,
            port,
            protocol,
        };
        let ports = [port("0.0.0.0", 8080, 80, Protocol::Tcp), port("::1", 5353, 53, Protocol::Udp)];
        assert_eq!(lines(&ports), "80/tcp -> 0.0.0.0:8080\n53/udp -> [::1]:5353\n");
        assert_eq!(ports[0].to_string(), "0.0.0.0:8080->80/tcp");
        for (text, expected) in
            [("80", Some(Protocol::Tcp)), ("80/udp", Some(Protocol::Udp)), ("0", None), ("80/x", None)]
        {
            assert_eq!(text.parse().ok().map(|GuestPort(_, protocol)| protocol), expected, "{text}");
        }
    }
}
