// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The tap device that one guest after the other uses, and its addresses.

use anyhow::{Context, Result, ensure};
use guest_protocol::run_spec::{Address, Interface};
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

#[derive(Clone, Copy)]
pub(super) struct Tap {
    pub(super) name: &'static str,
}

/// A tap device that exists. Dropping it removes it.
pub(super) struct TapDevice(Tap);

impl Tap {
    pub(super) const HOST: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 1);
    pub(super) const GUEST: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 2);
    pub(super) const PREFIX: u8 = 24;
    pub(super) const MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x02];
    pub(super) const MAC_TEXT: &str = "02:00:00:00:00:02";

    /// What PID 1 is told.
    pub(super) fn interface(&self) -> Interface {
        let address = Address { address: IpAddr::V4(Tap::GUEST), prefix: Tap::PREFIX };
        Interface { mac: Tap::MAC, addresses: vec![address], ..Interface::default() }
    }
}

impl TapDevice {
    /// Needs `CAP_NET_ADMIN` and `/dev/net/tun`.
    pub(super) fn create(name: &'static str) -> Result<TapDevice> {
        ip(&["tuntap", "add", name, "mode", "tap", "vnet_hdr"])?;
        let device = TapDevice(Tap { name });
        ip(&["addr", "add", &format!("{}/{}", Tap::HOST, Tap::PREFIX), "dev", name])?;
        ip(&["link", "set", name, "up"])?;
        Ok(device)
    }

    pub(super) fn tap(&self) -> Tap {
        self.0
    }
}

impl Drop for TapDevice {
    fn drop(&mut self) {
        let _ = ip(&["link", "delete", self.0.name]);
    }
}

fn ip(words: &[&str]) -> Result<()> {
    let status = Command::new("ip").args(words).status().context("ip")?;
    ensure!(status.success(), "ip {}: {status}", words.join(" "));
    Ok(())
}
