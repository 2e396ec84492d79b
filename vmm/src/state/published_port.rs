// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A port of the guest that the host publishes, as `status.json` has it and `ps` and `port` print it.

use crate::config::publish::Protocol;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PublishedPort {
    /// 0.0.0.0 for every address of the host.
    pub(crate) host_ip: IpAddr,
    pub(crate) host_port: u16,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
}

impl PublishedPort {
    #[must_use]
    pub(crate) fn host(&self) -> SocketAddr {
        SocketAddr::new(self.host_ip, self.host_port)
    }

    /// The guest's side, `80/tcp`.
    #[must_use]
    pub(crate) fn guest(&self) -> String {
        format!("{}/{}", self.port, self.protocol)
    }
}

/// As in docker's `ps`.
impl fmt::Display for PublishedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}->{}/{}", self.host(), self.port, self.protocol)
    }
}
