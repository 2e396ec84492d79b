// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Messages of `rtnetlink(7)`, as bytes: requests for links, addresses and routes, and what the
//! kernel answers. Linux, `include/uapi/linux/{netlink,rtnetlink,if_link,if_addr}.h`.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr};
use guest_protocol::run_spec::{Address, Interface, Route};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_NEWROUTE: u16 = 24;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_PERM_ADDRESS: u16 = 54;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;
const IFF_UP: u32 = 1;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
/// Without it an IPv6 address cannot be used for the second in which the kernel asks for another
/// owner.
const IFA_F_NODAD: u32 = 2;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// `struct nlmsghdr`.
const HEADER_SIZE: usize = 16;
/// `struct ifinfomsg`.
const LINK_SIZE: usize = 16;

/// What a kernel without IPv6 can have of `interface`.
#[must_use]
pub fn without_ipv6(interface: &Interface) -> Interface {
    let mut interface = interface.clone();
    interface.addresses.retain(|own| own.address.is_ipv4());
    interface.routes.retain(|route| route.destination.address.is_ipv4());
    interface
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// Its hardware address; empty if it has none.
    pub address: Vec<u8>,
    /// It has one that no process has chosen, as a device has.
    pub has_permanent_address: bool,
}

/// One message of the kernel's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Of a list of interfaces.
    Link(Link),
    /// The end of a list.
    Done,
    /// A request has succeeded (0), or failed with this error number.
    Result(i32),
}

/// A request that is being written.
struct Request {
    bytes: Vec<u8>,
}

impl Request {
    fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend([0; 4]);
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        // One request at a time: the sequence number tells nothing.
        bytes.extend([0; 8]);
        bytes.extend(body);
        Self { bytes }
    }

    /// Adds an attribute at the end of the request.
    fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        attribute(&mut self.bytes, kind, value);
        self
    }

    fn address(self, kind: u16, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.attribute(kind, &address.octets()),
            IpAddr::V6(address) => self.attribute(kind, &address.octets()),
        }
    }

    fn finish(mut self) -> Vec<u8> {
        let length = self.bytes.len() as u32;
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes
    }
}

/// Adds a `struct rtattr`, padded to four bytes, to `bytes`.
fn attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = (4 + value.len()) as u16;
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// Asks for all interfaces.
#[must_use]
pub fn list_links() -> Vec<u8> {
    Request::new(RTM_GETLINK, NLM_F_DUMP, &[0; LINK_SIZE]).finish()
}

/// Keeps the kernel from giving an interface a link-local address of IPv6 when it comes up.
#[must_use]
pub fn generate_no_address(index: u32) -> Vec<u8> {
    let mut body = [0; LINK_SIZE];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    let (mut of_family, mut families) = (Vec::new(), Vec::new());
    attribute(&mut of_family, IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]);
    attribute(&mut families, AF_INET6.into(), &of_family);
    Request::new(RTM_NEWLINK, NLM_F_ACK, &body).attribute(IFLA_AF_SPEC, &families).finish()
}

/// The link-local address that belongs to a hardware address (RFC 4291, appendix A).
#[must_use]
pub fn link_local([a, b, c, d, e, f]: [u8; 6]) -> Address {
    let octets = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f];
    Address { address: Ipv6Addr::from(octets).into(), prefix: 64 }
}

/// Sets name (empty: none) and MTU of an interface that is down, and brings it up.
#[must_use]
pub fn bring_up(index: u32, name: &str, mtu: Option<u16>) -> Vec<u8> {
    let mut body = [0; LINK_SIZE];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..12].copy_from_slice(&IFF_UP.to_ne_bytes());
    body[12..].copy_from_slice(&IFF_UP.to_ne_bytes());
    let mut request = Request::new(RTM_NEWLINK, NLM_F_ACK, &body);
    if !name.is_empty() {
        let mut name = Vec::from(name);
        name.push(0);
        request = request.attribute(IFLA_IFNAME, &name);
    }
    if let Some(mtu) = mtu {
        request = request.attribute(IFLA_MTU, &u32::from(mtu).to_ne_bytes());
    }
    request.finish()
}

/// Takes an interface down, which removes its routes and its addresses of IPv6, and gives it another
/// hardware address.
#[must_use]
pub fn take_down(index: u32, mac: [u8; 6]) -> Vec<u8> {
    let mut body = [0; LINK_SIZE];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[12..].copy_from_slice(&IFF_UP.to_ne_bytes());
    Request::new(RTM_NEWLINK, NLM_F_ACK, &body).attribute(IFLA_ADDRESS, &mac).finish()
}

/// Adds an address without duplicate address detection.
#[must_use]
pub fn add_address(index: u32, own: Address) -> Vec<u8> {
    let [a, b, c, d] = index.to_ne_bytes();
    let body = [family(own.address), own.prefix, 0, RT_SCOPE_UNIVERSE, a, b, c, d];
    let request = Request::new(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &body);
    let request = request.address(IFA_LOCAL, own.address).address(IFA_ADDRESS, own.address);
    match own.address {
        // Networks of one or two addresses have no broadcast address (RFC 3021).
        IpAddr::V4(address) if own.prefix < 31 => {
            let hosts = u32::MAX.checked_shr(own.prefix.into()).unwrap_or(0);
            request.attribute(IFA_BROADCAST, &(address.to_bits() | hosts).to_be_bytes())
        }
        IpAddr::V4(_) => request,
        IpAddr::V6(_) => request.attribute(IFA_FLAGS, &IFA_F_NODAD.to_ne_bytes()),
    }
    .finish()
}

/// Removes an address of an interface.
#[must_use]
pub fn delete_address(index: u32, own: Address) -> Vec<u8> {
    let [a, b, c, d] = index.to_ne_bytes();
    let body = [family(own.address), own.prefix, 0, 0, a, b, c, d];
    Request::new(RTM_DELADDR, NLM_F_ACK, &body).address(IFA_LOCAL, own.address).finish()
}

/// Adds a route through an interface. The kernel takes the route with the lowest `metric`.
#[must_use]
pub fn add_route(index: u32, route: &Route, metric: Option<u32>) -> Vec<u8> {
    let Route { destination, gateway } = route;
    let scope = match (destination.address, gateway) {
        (IpAddr::V4(_), None) => RT_SCOPE_LINK,
        _ => RT_SCOPE_UNIVERSE,
    };
    let family = family(destination.address);
    let body = [family, destination.prefix, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, scope, RTN_UNICAST, 0, 0, 0, 0];
    let mut request = Request::new(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &body);
    if destination.prefix > 0 {
        request = request.address(RTA_DST, destination.address);
    }
    request = request.attribute(RTA_OIF, &index.to_ne_bytes());
    if let Some(gateway) = gateway {
        request = request.address(RTA_GATEWAY, *gateway);
    }
    if let Some(metric) = metric {
        request = request.attribute(RTA_PRIORITY, &metric.to_ne_bytes());
    }
    request.finish()
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

/// Splits what one read returned into its messages. Ends at the first that is incomplete.
#[must_use]
pub fn answers(mut bytes: &[u8]) -> Vec<Answer> {
    let mut answers = Vec::new();
    while let Some((length, kind)) = word(bytes, 0).zip(half(bytes, 4)) {
        let Some(body) = bytes.get(HEADER_SIZE..length as usize) else { break };
        match kind {
            NLMSG_DONE => answers.push(Answer::Done),
            NLMSG_ERROR => answers.push(Answer::Result(word(body, 0).map_or(0, |number| -(number as i32)))),
            RTM_NEWLINK => answers.extend(link(body).map(Answer::Link)),
            _ => {}
        }
        bytes = bytes.get((length as usize).next_multiple_of(4)..).unwrap_or_default();
    }
    answers
}

/// The link of the interface at `position` of `interfaces`, which are in the order in which the kernel has found their devices: the one
/// with its address, or if the workload has changed that, the device at this position, unless it is another one of them.
#[must_use]
pub fn device<'a>(links: &'a [Link], interfaces: &[Interface], position: usize) -> Option<&'a Link> {
    let by_address = links.iter().find(|link| link.address == interfaces.get(position).map_or([0; 6], |own| own.mac));
    by_address.or_else(|| {
        let mut devices: Vec<&Link> = links.iter().filter(|link| link.has_permanent_address).collect();
        devices.sort_by_key(|link| link.index);
        let is_another = |link: &&Link| interfaces.iter().any(|other| link.address == other.mac);
        devices.get(position).copied().filter(|link| !is_another(link))
    })
}

fn link(body: &[u8]) -> Option<Link> {
    let index = word(body, 4)?;
    let mut link = Link { index, name: String::new(), address: Vec::new(), has_permanent_address: false };
    let mut attributes = body.get(LINK_SIZE..)?;
    while let Some((length, kind)) = half(attributes, 0).zip(half(attributes, 2)) {
        let Some(value) = attributes.get(4..usize::from(length)) else { break };
        match kind {
            IFLA_ADDRESS => link.address = value.to_vec(),
            IFLA_PERM_ADDRESS => link.has_permanent_address = true,
            IFLA_IFNAME => link.name = String::from_utf8_lossy(value).trim_end_matches('\0').into(),
            _ => {}
        }
        attributes = attributes.get(usize::from(length).next_multiple_of(4)..).unwrap_or_default();
    }
    Some(link)
}

fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(offset..offset + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(offset..offset + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str, prefix: u8) -> Address {
        Address { address: text.parse().unwrap(), prefix }
    }

    /// The attributes of a request with a body of `size` bytes.
    fn attributes(request: &[u8], size: usize) -> Vec<(u16, Vec<u8>)> {
        assert_eq!(word(request, 0), Some(request.len() as u32));
        let mut rest = &request[HEADER_SIZE + size..];
        let mut found = Vec::new();
        while let Some((length, kind)) = half(rest, 0).zip(half(rest, 2)) {
            found.push((kind, rest[4..usize::from(length)].to_vec()));
            rest = &rest[usize::from(length).next_multiple_of(4)..];
        }
        found
    }

    #[test]
    fn link_is_renamed_before_it_is_up() {
        let request = bring_up(2, "net0", Some(9000));
        assert_eq!(request[16..32], [0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]);
        let expected = [(IFLA_IFNAME, b"net0\0".to_vec()), (IFLA_MTU, 9000_u32.to_ne_bytes().to_vec())];
        assert_eq!(attributes(&request, LINK_SIZE), expected);
        assert_eq!(attributes(&bring_up(1, "", None), LINK_SIZE), []);
    }

    #[test]
    fn interface_keeps_its_ipv4_addresses_and_routes_without_ipv6() {
        let route = |network, prefix, gateway: &str| Route {
            destination: address(network, prefix),
            gateway: Some(gateway.parse().unwrap()),
        };
        let (four, six) = (route("0.0.0.0", 0, "10.0.2.2"), route("::", 0, "fd00:2::2"));
        let both = Interface {
            name: "net0".into(),
            addresses: [address("fd00:2::15", 64), address("10.0.2.15", 24)].to_vec(),
            routes: [four, six].to_vec(),
            ..Interface::default()
        };
        let expected =
            Interface { addresses: [address("10.0.2.15", 24)].to_vec(), routes: [four].to_vec(), ..both.clone() };
        assert_eq!(without_ipv6(&both), expected);
        assert_eq!(without_ipv6(&expected), expected);
    }

    #[test]
    fn link_is_down_with_its_new_address() {
        let request = take_down(2, [2, 0, 0, 0, 0, 9]);
        assert_eq!(request[16..32], [0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(attributes(&request, LINK_SIZE), [(IFLA_ADDRESS, [2, 0, 0, 0, 0, 9].to_vec())]);
    }

    #[test]
    fn ipv4_address_has_its_broadcast_address() {
        let request = add_address(3, address("10.0.2.15", 24));
        assert_eq!(request[16..24], [AF_INET, 24, 0, 0, 3, 0, 0, 0]);
        let own = [10, 0, 2, 15].to_vec();
        let broadcast = (IFA_BROADCAST, [10, 0, 2, 255].to_vec());
        assert_eq!(attributes(&request, 8), [(IFA_LOCAL, own.clone()), (IFA_ADDRESS, own), broadcast]);
        assert_eq!(attributes(&add_address(3, address("10.0.0.1", 31)), 8).len(), 2);
    }

    #[test]
    fn address_is_removed_by_its_value() {
        let request = delete_address(3, address("10.0.2.15", 24));
        assert_eq!((request[4], &request[16..24]), (21, &[AF_INET, 24, 0, 0, 3, 0, 0, 0][..]));
        assert_eq!(attributes(&request, 8), [(IFA_LOCAL, [10, 0, 2, 15].to_vec())]);
    }

    #[test]
    fn ipv6_address_needs_no_duplicate_address_detection() {
        let request = add_address(3, address("fd00::2", 64));
        assert_eq!(request[16..18], [AF_INET6, 64]);
        assert_eq!(attributes(&request, 8)[2], (IFA_FLAGS, 2_u32.to_ne_bytes().to_vec()));
    }

    #[test]
    fn link_local_address_is_of_the_hardware_address() {
        assert_eq!(link_local([0xfa, 0x96, 0xef, 0xab, 0x1c, 0x4f]), address("fe80::f896:efff:feab:1c4f", 64));
        let request = generate_no_address(2);
        assert_eq!(request[16..32], [0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let families = [12, 0, AF_INET6, 0, 5, 0, 8, 0, 1, 0, 0, 0].to_vec();
        assert_eq!(attributes(&request, LINK_SIZE), [(IFLA_AF_SPEC, families)]);
    }

    #[test]
    fn route_has_gateway_or_link_scope() {
        let default = Route { destination: address("0.0.0.0", 0), gateway: Some("10.0.0.1".parse().unwrap()) };
        let request = add_route(2, &default, None);
        assert_eq!(request[16..24], [AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, RT_SCOPE_UNIVERSE, RTN_UNICAST]);
        let interface = (RTA_OIF, 2_u32.to_ne_bytes().to_vec());
        assert_eq!(attributes(&request, 12), [interface.clone(), (RTA_GATEWAY, [10, 0, 0, 1].to_vec())]);
        let on_link = add_route(2, &Route { destination: address("169.254.1.1", 32), gateway: None }, Some(7));
        assert_eq!(on_link[22], RT_SCOPE_LINK);
        let metric = (RTA_PRIORITY, 7_u32.to_ne_bytes().to_vec());
        assert_eq!(attributes(&on_link, 12), [(RTA_DST, [169, 254, 1, 1].to_vec()), interface, metric]);
    }

    #[test]
    fn answers_are_links_results_and_the_end() {
        let mut body = [0; LINK_SIZE];
        body[4] = 2;
        let link = Request::new(RTM_NEWLINK, 0, &body)
            .attribute(IFLA_ADDRESS, &[2, 0, 0, 0, 0, 1])
            .attribute(IFLA_IFNAME, b"eth0\0")
            .attribute(IFLA_PERM_ADDRESS, &[2, 0, 0, 0, 0, 9])
            .finish();
        let failed = Request::new(NLMSG_ERROR, 0, &(-17_i32).to_ne_bytes()).finish();
        let done = Request::new(NLMSG_DONE, 0, &[0; 4]).finish();
        let address = [2, 0, 0, 0, 0, 1].to_vec();
        let expected = Link { index: 2, name: "eth0".into(), address, has_permanent_address: true };
        let bytes = [&link[..], &failed, &done].concat();
        assert_eq!(answers(&bytes), [Answer::Link(expected.clone()), Answer::Result(17), Answer::Done]);
        assert_eq!(answers(&bytes[..link.len() + 3]), [Answer::Link(expected)]);
        assert_eq!(answers(&[0; 64]), []);
    }

    #[test]
    fn device_is_found_by_its_address_or_its_position() {
        let link = |index: u32, last: u8, has_permanent_address: bool| Link {
            index,
            name: String::new(),
            address: [2, 0, 0, 0, 0, last].to_vec(),
            has_permanent_address,
        };
        let interfaces = [1, 2].map(|last| Interface { mac: [2, 0, 0, 0, 0, last], ..Interface::default() });
        let found = |links: &[Link]| [0, 1].map(|at| device(links, &interfaces, at).map(|link| link.index));
        assert_eq!(found(&[link(3, 2, true), link(2, 1, true)]), [Some(2), Some(3)]);
        // A bridge of the workload's is no device.
        assert_eq!(found(&[link(4, 9, false), link(3, 2, true), link(2, 7, true)]), [Some(2), Some(3)]);
        assert_eq!(found(&[link(2, 7, true), link(3, 8, true)]), [Some(2), Some(3)]);
        // The first one is in another network namespace.
        assert_eq!(found(&[link(3, 2, true)]), [None, Some(3)]);
        assert_eq!(found(&[]), [None, None]);
    }
}
