// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Replies of good and of hostile servers.

use super::lease::{Lease, Times};
use super::message::{Kind, Message, Reply, option};
use alloc::string::String;
use alloc::vec::Vec;
use alloc::{format, vec};
use core::net::Ipv4Addr;
use guest_protocol::run_spec::Route;

pub(super) const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const XID: u32 = 0x1234_5678;
pub(super) const ACK: u8 = 5;

pub(super) type Options<'a> = &'a [(u8, &'a [u8])];

/// Mask 255.255.255.0, server and router 10.0.0.1, an hour.
pub(super) const GOOD: Options<'static> = &[
    (option::SUBNET_MASK, &[255, 255, 255, 0]),
    (option::SERVER, &[10, 0, 0, 1]),
    (option::ROUTERS, &[10, 0, 0, 1]),
    (option::LEASE_TIME, &[0, 0, 14, 16]),
];

/// A reply that gives `address`, with the raw bytes of its options.
pub(super) fn raw(xid: u32, address: [u8; 4], options: &[u8]) -> Vec<u8> {
    let mut message = vec![2, 1, 6, 0];
    message.extend(xid.to_be_bytes());
    message.extend([0; 8]);
    message.extend(address);
    message.extend([0; 8]);
    message.extend(MAC);
    message.resize(236, 0);
    message.extend([99, 130, 83, 99]);
    message.extend(options);
    message
}

fn encode(kind: u8, options: Options<'_>) -> Vec<u8> {
    let mut bytes = vec![option::MESSAGE_TYPE, 1, kind];
    for (code, value) in options {
        bytes.extend([*code, value.len() as u8]);
        bytes.extend(*value);
    }
    bytes
}

pub(super) fn reply(xid: u32, kind: u8, address: [u8; 4], options: Options<'_>) -> Vec<u8> {
    raw(xid, address, &[encode(kind, options), vec![option::END]].concat())
}

/// The lease of an ACK for 10.0.0.9 with options that replace or follow the good ones.
fn lease(options: Options<'_>) -> Option<Lease> {
    let kept = GOOD.iter().filter(|(code, _)| options.iter().all(|(other, _)| other != code));
    let all: Vec<(u8, &[u8])> = kept.chain(options).copied().collect();
    Lease::read(&Reply::parse(&reply(XID, ACK, [10, 0, 0, 9], &all), MAC, XID)?)
}

fn shown(routes: &[Route]) -> Vec<String> {
    let gateway = |route: &Route| route.gateway.map_or(String::from("-"), |gateway| format!("{gateway}"));
    let show = |route: &Route| format!("{}/{} {}", route.destination.address, route.destination.prefix, gateway(route));
    routes.iter().map(show).collect()
}

#[test]
fn message_of_a_client_has_its_fields() {
    let message = Message::new(Kind::Discover, MAC, XID, 7, None).with(option::HOST_NAME, b"web").finish();
    assert_eq!(message.len(), 300);
    assert_eq!(message[..12], [1, 1, 6, 0, 0x12, 0x34, 0x56, 0x78, 0, 7, 0x80, 0]);
    assert_eq!((&message[28..34], message[34..236].iter().all(|byte| *byte == 0)), (&MAC[..], true));
    let options = [99, 130, 83, 99, 53, 1, 1, 61, 7, 1, 2, 0, 0, 0, 0, 1, 12, 3, b'w', b'e', b'b', 255];
    assert_eq!(message[236..258], options);
    let with_address = Message::new(Kind::Request, MAC, XID, 0, Some(Ipv4Addr::new(10, 0, 0, 9)));
    let with_address = with_address.with(option::HOST_NAME, &[b'a'; 256]).with(option::HOST_NAME, b"").finish();
    assert_eq!(with_address[10..16], [0, 0, 10, 0, 0, 9]);
    assert_eq!(with_address[252], option::END, "no option is empty or too long");
}

#[test]
fn lease_has_address_router_and_times() {
    let lease = lease(&[]).unwrap();
    assert_eq!((lease.server, lease.address), (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 9)));
    assert_eq!((lease.settings.address.prefix, lease.settings.mtu), (24, None));
    assert_eq!(shown(&lease.settings.routes), ["0.0.0.0/0 10.0.0.1"]);
    assert_eq!(lease.times, Some(Times { renewal: 1_800_000, rebinding: 3_150_000, expiry: 3_600_000 }));
    assert!(lease.settings.name_servers.is_empty() && lease.settings.search.is_empty());
}

#[test]
fn lease_has_name_servers_search_list_and_mtu() {
    let servers = [[10, 0, 0, 53], [0, 0, 0, 0], [1, 1, 1, 1], [8, 8, 8, 8], [9, 9, 9, 9]];
    let settings = lease(&[
        (option::NAME_SERVERS, servers.as_flattened()),
        (option::DOMAIN, b"old.lan\0"),
        (option::SEARCH, b"\x03eng\x05apple\x03com\0\x09marketing\xc0\x04"),
        (option::MTU, &[0x05, 0x78]),
    ]);
    let settings = settings.unwrap().settings;
    let shown: Vec<_> = settings.name_servers.iter().map(|server| format!("{server}")).collect();
    assert_eq!(shown, ["10.0.0.53", "1.1.1.1", "8.8.8.8"]);
    // The example of RFC 3397.
    assert_eq!(settings.search, ["eng.apple.com", "marketing.apple.com"]);
    assert_eq!(settings.mtu, Some(1400));
    let domain = lease(&[(option::DOMAIN, b"old.lan\0")]).unwrap();
    assert_eq!(domain.settings.search, ["old.lan"]);
}

#[test]
fn options_are_read_from_all_fields() {
    for (overload, file, name) in [(1, true, false), (2, false, true), (3, true, true)] {
        let options = [&encode(ACK, GOOD)[..], &[option::OVERLOAD, 1, overload], b"\x77\x03\x01a\0", &[option::END]];
        let mut message = raw(XID, [10, 0, 0, 9], &options.concat());
        // The parts of one option, which are one value.
        message[108..112].copy_from_slice(b"\x77\x02\x01b");
        message[112..116].copy_from_slice(b"\x77\x01\0\xff");
        message[44..51].copy_from_slice(b"\0\x77\x03\x01c\0\xff");
        let search = Lease::read(&Reply::parse(&message, MAC, XID).unwrap()).unwrap().settings.search;
        let expected: Vec<&str> = [(true, "a"), (file, "b"), (name, "c")]
            .into_iter()
            .filter_map(|(is_read, name)| is_read.then_some(name))
            .collect();
        assert_eq!(search, expected, "{overload}");
    }
}

/// A row: classless routes; the routes of the lease.
#[test]
fn classless_routes_take_the_place_of_routers() {
    let table: [(&[u8], &[&str]); 7] = [
        (&[24, 10, 1, 2, 10, 0, 0, 2, 0, 10, 0, 0, 1], &["10.1.2.0/24 10.0.0.2", "0.0.0.0/0 10.0.0.1"]),
        // On the link, and by a router that is reached so.
        (&[0, 10, 9, 0, 1, 32, 10, 9, 0, 1, 0, 0, 0, 0], &["10.9.0.1/32 -", "0.0.0.0/0 10.9.0.1"]),
        (&[0, 10, 9, 0, 1], &["10.9.0.1/32 -", "0.0.0.0/0 10.9.0.1"]),
        (&[9, 10, 255, 10, 0, 0, 2], &["10.128.0.0/9 10.0.0.2"]),
        // The second one to a network; a router that is no host; the own address.
        (&[8, 11, 10, 0, 0, 2, 8, 11, 10, 0, 0, 3, 8, 12, 224, 0, 0, 1, 8, 13, 10, 0, 0, 9], &["11.0.0.0/8 10.0.0.2"]),
        // Malformed lists: too long a prefix, half an entry.
        (&[33, 1, 2, 3, 4, 5, 10, 0, 0, 1], &["0.0.0.0/0 10.0.0.1"]),
        (&[24, 10, 1, 2, 10, 0, 0], &["0.0.0.0/0 10.0.0.1"]),
    ];
    for (list, expected) in table {
        let lease = lease(&[(option::CLASSLESS_ROUTES, list)]).unwrap();
        assert_eq!(shown(&lease.settings.routes), expected, "{list:?}");
    }
    let outside = lease(&[(option::ROUTERS, &[10, 9, 0, 1]), (option::SUBNET_MASK, &[255; 4])]).unwrap();
    assert_eq!(shown(&outside.settings.routes), ["10.9.0.1/32 -", "0.0.0.0/0 10.9.0.1"]);
}

#[test]
fn huge_lists_are_cut() {
    let routes: Vec<u8> = (0..=255).flat_map(|number| [24, 11, 0, number, 10, 0, 0, 1]).collect();
    let parts: Vec<(u8, &[u8])> = routes.chunks(240).map(|part| (option::CLASSLESS_ROUTES, part)).collect();
    assert_eq!(lease(&parts).unwrap().settings.routes.len(), 64);
    let servers = [10, 0, 0, 53].repeat(60);
    assert_eq!(lease(&[(option::NAME_SERVERS, &servers)]).unwrap().settings.name_servers.len(), 3);
    let names = b"\x01a\0".repeat(80);
    assert_eq!(lease(&[(option::SEARCH, &names)]).unwrap().settings.search.len(), 6);
    let long = [&[63][..], &[b'a'; 63], &[63], &[b'b'; 63], &[0]].concat();
    let thrice = long.repeat(3);
    let parts: Vec<(u8, &[u8])> = thrice.chunks(200).map(|part| (option::SEARCH, part)).collect();
    assert_eq!(lease(&parts).unwrap().settings.search.len(), 2, "256 bytes are not enough for three");
}

/// A row: what is wrong; the lease's options, which are left out.
#[test]
fn malformed_lists_are_left_out() {
    let table: [(&str, u8, &[u8]); 14] = [
        ("half an address", option::NAME_SERVERS, &[10, 0, 0, 53, 10]),
        ("no address", option::NAME_SERVERS, &[]),
        ("a pointer to itself", option::SEARCH, b"\xc0\0"),
        ("a pointer forward", option::SEARCH, b"\x01a\xc0\x05\0\x01b\0"),
        ("a loop", option::SEARCH, b"\x01a\xc0\0"),
        ("a pointer out of the option", option::SEARCH, b"\x01a\xff\xff"),
        ("half a pointer", option::SEARCH, b"\x01a\xc0"),
        ("half a label", option::SEARCH, b"\x09a"),
        ("no end", option::SEARCH, b"\x01a"),
        ("a label of another kind", option::SEARCH, b"\x40a\0"),
        ("a line end", option::SEARCH, b"\x08a\nserver\0"),
        ("an empty name", option::SEARCH, b"\0"),
        ("a line end in the domain", option::DOMAIN, b"a\nnameserver 6.6.6.6"),
        ("a blank in the domain", option::DOMAIN, b"a b"),
    ];
    for (why, code, value) in table {
        let settings = lease(&[(code, value)]).unwrap().settings;
        assert!(settings.name_servers.is_empty() && settings.search.is_empty(), "{why}: {settings:?}");
    }
    for mtu in [&[0, 67][..], &[5], &[0, 0, 5, 220]] {
        assert_eq!(lease(&[(option::MTU, mtu)]).unwrap().settings.mtu, None, "{mtu:?}");
    }
}

#[test]
fn lease_without_address_server_or_time_is_rejected() {
    let table: [(&str, u8, &[u8]); 9] = [
        ("no time at all", option::LEASE_TIME, &[0; 4]),
        ("a short time", option::LEASE_TIME, &[0, 0, 1]),
        ("no server", option::SERVER, &[]),
        ("server 0", option::SERVER, &[0; 4]),
        ("a multicast server", option::SERVER, &[224, 0, 0, 1]),
        ("half a server", option::SERVER, &[10, 0]),
        ("mask 0", option::SUBNET_MASK, &[0; 4]),
        ("a mask with a hole", option::SUBNET_MASK, &[255, 0, 255, 0]),
        ("a long mask", option::SUBNET_MASK, &[255, 255, 255, 0, 0]),
    ];
    for (why, code, value) in table {
        assert_eq!(lease(&[(code, value)]), None, "{why}");
    }
    for address in [[0; 4], [127, 0, 0, 1], [224, 0, 0, 1], [255; 4], [240, 0, 0, 1], [10, 0, 0, 0], [10, 0, 0, 255]] {
        let reply = Reply::parse(&reply(XID, ACK, address, GOOD), MAC, XID).unwrap();
        assert_eq!(Lease::read(&reply), None, "{address:?}");
    }
    assert!(lease(&[(option::SUBNET_MASK, &[255, 255, 255, 254])]).is_some());
    let class = Reply::parse(&reply(XID, ACK, [172, 16, 0, 9], &[GOOD[1], GOOD[3]]), MAC, XID).unwrap();
    assert_eq!(Lease::read(&class).unwrap().settings.address.prefix, 16);
}

#[test]
fn times_are_in_order() {
    let lasting = lease(&[(option::LEASE_TIME, &[255; 4])]).unwrap();
    assert_eq!(lasting.times, None);
    let seconds = u32::to_be_bytes;
    for (renewal, rebinding, expected) in
        [(100, 200, (100, 200)), (200, 100, (100, 100)), (0, 0, (1800, 3150)), (4000, u32::MAX, (1800, 3150))]
    {
        let (renewal, rebinding) = (seconds(renewal), seconds(rebinding));
        let times = lease(&[(option::RENEWAL_TIME, &renewal), (option::REBINDING_TIME, &rebinding)]).unwrap().times;
        let (renewal, rebinding) = (expected.0 * 1000, expected.1 * 1000);
        assert_eq!(times, Some(Times { renewal, rebinding, expiry: 3_600_000 }));
    }
}

#[test]
fn what_is_not_a_reply_to_the_request_is_rejected() {
    let good = reply(XID, ACK, [10, 0, 0, 9], GOOD);
    assert!(Reply::parse(&good, MAC, XID).is_some());
    for length in 0..good.len() - 1 {
        let cut = Reply::parse(&good[..length], MAC, XID);
        // Between two options a message may end.
        assert!(cut.is_none() || length >= 243, "{length} bytes");
    }
    assert_eq!(Reply::parse(&good[..good.len() - 2], MAC, XID), None, "half an option");
    for (at, why) in [
        (0, "a request"),
        (1, "hardware"),
        (2, "length"),
        (4, "xid"),
        (28, "another client's"),
        (236, "cookie"),
        (242, "a kind"),
    ] {
        let mut bad = good.clone();
        bad[at] ^= 0x40;
        assert_eq!(Reply::parse(&bad, MAC, XID), None, "{why}");
    }
    for overload in
        [&[option::OVERLOAD, 1, 4][..], &[option::OVERLOAD, 1, 0], &[option::OVERLOAD, 2, 1, 1], &[option::OVERLOAD, 0]]
    {
        let options = [&encode(ACK, GOOD)[..], overload, &[option::END]].concat();
        assert_eq!(Reply::parse(&raw(XID, [10, 0, 0, 9], &options), MAC, XID), None, "{overload:?}");
    }
    let mut file = raw(XID, [10, 0, 0, 9], &[&encode(ACK, GOOD)[..], &[option::OVERLOAD, 1, 1, option::END]].concat());
    file[108..110].copy_from_slice(&[option::SEARCH, 127]);
    assert_eq!(Reply::parse(&file, MAC, XID), None, "an option longer than the field of the file");
}

proptest::proptest! {
    #[test]
    fn any_options_are_parsed_without_panic(options: Vec<u8>, overload in 0_u8..5) {
        let start = [&encode(ACK, GOOD)[..], &[option::OVERLOAD, 1, overload]].concat();
        let message = raw(XID, [10, 0, 0, 9], &[start, options.clone()].concat());
        let lease = Reply::parse(&message, MAC, XID).and_then(|reply| Lease::read(&reply));
        if let Some(lease) = lease {
            proptest::prop_assert!(lease.settings.routes.len() <= 130 && lease.settings.search.len() <= 6);
        }
    }

    #[test]
    fn any_value_of_a_list_is_parsed_without_panic(value: Vec<u8>, code in proptest::sample::select(
        vec![option::SEARCH, option::CLASSLESS_ROUTES, option::ROUTERS, option::NAME_SERVERS, option::DOMAIN]
    )) {
        let value = &value[..value.len().min(255)];
        if let Some(lease) = lease(&[(code, value)]) {
            let is_clean = lease.settings.search.iter().all(|name| !name.contains(|c: char| c.is_whitespace() || c.is_control()));
            proptest::prop_assert!(is_clean);
        }
    }
}
