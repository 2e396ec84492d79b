// SPDX-License-Identifier: Apache-2.0 OR MIT
//! rtnetlink in a network namespace of each test's own thread. Needs root; without it the tests are skipped and print why.

use super::link::ADDR_GEN_MODE_NONE;
use super::*;
use crate::host::test_namespace::{enter, ip};
use std::net::IpAddr;

fn link(netlink: &mut Netlink, name: &str) -> Link {
    netlink.links().unwrap().into_iter().find(|link| link.name == name).unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Address and prefix length of each address of an interface that is valid beyond its link.
fn addresses(netlink: &mut Netlink, index: u32) -> Vec<(IpAddr, u8)> {
    let of_link = netlink.addresses().unwrap().into_iter().filter(|address| address.index == index);
    of_link.filter(|address| !address.is_link_local).map(|address| (address.address, address.prefix)).collect()
}

#[test]
fn links_have_name_address_mtu_and_state() {
    if !enter() {
        return;
    }
    ip("link add v0 address 02:00:00:00:00:07 mtu 1400 type veth peer name v1");
    ip("link set v0 up");
    let mut netlink = Netlink::open().unwrap();
    let v0 = link(&mut netlink, "v0");
    assert_eq!((v0.mac, v0.mtu, v0.is_up), (Some([2, 0, 0, 0, 0, 7]), 1400, true));
    assert!(!v0.is_loopback && !link(&mut netlink, "v1").is_up);
    assert!(link(&mut netlink, "lo").is_loopback);
}

#[test]
fn addresses_are_listed_and_removed() {
    if !enter() {
        return;
    }
    ip("link add v0 type veth peer name v1");
    ip("link set v0 up");
    ip("link set v1 up");
    ip("address add 10.0.0.2/24 dev v0");
    ip("address add fd00::2/64 dev v0 nodad");
    ip("address add 10.1.0.1 peer 10.1.0.9/32 dev v1");
    let mut netlink = Netlink::open().unwrap();
    let index = link(&mut netlink, "v0").index;
    let given = [(address("10.0.0.2"), 24), (address("fd00::2"), 64)];
    assert_eq!(addresses(&mut netlink, index), given);
    let all = netlink.addresses().unwrap();
    let peer = all.iter().find(|found| found.address == address("10.1.0.1")).unwrap();
    assert_eq!((peer.peer, peer.prefix), (Some(address("10.1.0.9")), 32));
    let link_local = all.iter().find(|found| found.index == index && found.is_link_local);
    assert!(link_local.is_some_and(|found| found.address.is_ipv6()), "{all:?}");
    for found in all.iter().filter(|found| found.index == index) {
        netlink.remove_address(found).unwrap();
    }
    assert!(netlink.addresses().unwrap().iter().all(|found| found.index != index));
}

#[test]
fn removed_addresses_and_routes_are_put_back_as_they_were() {
    if !enter() {
        return;
    }
    ip("link add v0 type veth peer name v1");
    ip("link set v0 up");
    ip("link set v1 up");
    ip("address add 10.0.0.2/24 brd + dev v0 label v0:x");
    ip("address add fd00::2/64 dev v0 nodad valid_lft 7000 preferred_lft 6000");
    ip("route add 169.254.1.1 dev v0 scope link");
    ip("route add default via 169.254.1.1 dev v0 onlink metric 50 mtu 1300");
    ip("route add 10.9.0.0/16 nexthop via 10.0.0.3 nexthop via 10.0.0.4");
    ip("route add default via fd00::1 dev v0");
    ip("route add 10.8.0.0/16 via 10.0.0.3 table 7");
    let show = || [ip("-d address show dev v0"), ip("route show"), ip("-6 route show")].concat();
    // Lifetimes count down.
    let settled = |text: String| {
        let words = text.split_whitespace().filter(|word| !word.ends_with("sec"));
        words.collect::<Vec<_>>().join(" ")
    };
    let before = settled(show());

    let mut netlink = Netlink::open().unwrap();
    let index = link(&mut netlink, "v0").index;
    let taken: Vec<_> = netlink.addresses().unwrap().into_iter().filter(|found| found.index == index).collect();
    let routes: Vec<_> = netlink.routes().unwrap().into_iter().filter(|route| route.index == index).collect();
    let own: Vec<&Route> = routes.iter().filter(|route| !route.is_kernels).collect();
    let mut shapes: Vec<_> = own.iter().map(|route| (route.destination, route.gateway, route.priority)).collect();
    shapes.sort();
    let expected = [
        ((address("0.0.0.0"), 0), Some(address("169.254.1.1")), 50),
        ((address("10.9.0.0"), 16), Some(address("10.0.0.3")), 0),
        ((address("169.254.1.1"), 32), None, 0),
        ((address("::"), 0), Some(address("fd00::1")), 1024),
    ];
    assert_eq!(shapes, expected);
    let mode = link(&mut netlink, "v0").addr_gen_mode.unwrap();
    netlink.set_addr_gen_mode(index, ADDR_GEN_MODE_NONE).unwrap();
    for found in &taken {
        netlink.remove_address(found).unwrap();
    }
    // Those of IPv4 went with the addresses.
    for route in netlink.routes().unwrap().iter().filter(|route| route.index == index) {
        assert!(route.destination.0.is_ipv6());
        netlink.remove_route(route).unwrap();
    }
    assert!(netlink.routes().unwrap().iter().all(|route| route.index != index));
    // No link-local address comes back by itself.
    ip("link set v0 down");
    ip("link set v0 up");
    assert!(netlink.addresses().unwrap().iter().all(|found| found.index != index));

    for found in &taken {
        netlink.restore_address(&found.message).unwrap();
    }
    let (direct, through_gateway): (Vec<&Route>, Vec<_>) =
        own.iter().copied().partition(|route| route.gateway.is_none());
    for route in direct.into_iter().chain(through_gateway) {
        netlink.restore_route(&route.message).unwrap();
    }
    netlink.set_addr_gen_mode(index, mode).unwrap();
    assert_eq!(settled(show()), before);
}

#[test]
fn bridge_is_made_with_address_and_port_and_removed() {
    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
    if !enter() {
        return;
    }
    ip("link add v0 type veth peer name v1");
    let mut netlink = Netlink::open().unwrap();
    netlink.create_bridge("b0", MAC).unwrap();
    assert_eq!(netlink.create_bridge("b0", MAC).unwrap_err().kind(), ErrorKind::AlreadyExists);
    let (bridge, port) = (link(&mut netlink, "b0"), link(&mut netlink, "v0"));
    assert!(bridge.is_bridge && !bridge.is_up && !port.is_bridge && port.bridge.is_none(), "{bridge:?}");
    for (text, prefix) in [("10.0.0.1", 24), ("fd00::1", 64)] {
        netlink.add_address(bridge.index, address(text), prefix).unwrap();
    }
    netlink.set_up(bridge.index).unwrap();
    netlink.join_bridge(port.index, bridge.index).unwrap();
    let (bridge, port) = (link(&mut netlink, "b0"), link(&mut netlink, "v0"));
    assert_eq!((bridge.mac, bridge.is_up, port.bridge), (Some(MAC), true, Some(bridge.index)));
    assert_eq!(addresses(&mut netlink, bridge.index), [(address("10.0.0.1"), 24), (address("fd00::1"), 64)]);
    netlink.remove_link(bridge.index).unwrap();
    assert!(netlink.links().unwrap().iter().all(|link| link.name != "b0"));
}
