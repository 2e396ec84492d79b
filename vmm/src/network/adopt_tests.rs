// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Adopting an interface of a network namespace of each test's own. Needs root; without it the tests are skipped.

use super::*;
use crate::host::test_namespace::{enter, ip};
use std::time::{Duration, Instant};

/// A namespace with `v0`, which has addresses and routes.
fn enter_with_interface() -> bool {
    if !enter() {
        return false;
    }
    ip("link add v0 address 02:00:00:00:00:07 mtu 1400 type veth peer name v1");
    // Without it the kernel probes its IPv6 addresses for a second or two.
    std::fs::write("/proc/sys/net/ipv6/conf/v0/accept_dad", "0").unwrap();
    ip("link set v0 up");
    ip("link set v1 up");
    ip("address add 10.0.0.2/24 dev v0");
    ip("address add fd00::2/64 dev v0 nodad");
    ip("route add default via 10.0.0.1");
    ip("-6 route add default via fd00::1 dev v0");
    // The kernel adds the address of the link a moment after the carrier.
    let limit = Instant::now() + Duration::from_secs(30);
    while !shown().contains("inet6 fe80") {
        assert!(Instant::now() < limit, "{}", shown());
        std::thread::yield_now();
    }
    true
}

/// Without the state of the duplicate address detection, which ends at some time.
fn shown() -> String {
    [ip("address show dev v0"), ip("route show"), ip("-6 route show dev v0")].concat().replace(" tentative", "")
}

#[test]
fn interface_is_taken_and_put_back_at_the_end() {
    if !enter_with_interface() {
        return;
    }
    let before = shown();
    let mut adopted = adopt(Some("v0")).unwrap();
    assert_eq!(shown(), before, "only `take` changes anything");
    adopted.guard.take().unwrap();
    assert_eq!((adopted.mac, adopted.mtu), ([2, 0, 0, 0, 0, 7], 1400));
    let addresses: Vec<_> =
        adopted.addresses.iter().map(|found| format!("{}/{}", found.address, found.prefix)).collect();
    assert_eq!(addresses, ["10.0.0.2/24", "fd00::2/64"]);
    assert_eq!(adopted.routes.len(), 2, "{:?}", adopted.routes);
    assert!(!shown().contains("inet") && !shown().contains("default via"), "{}", shown());
    assert!(matches!(adopt(Some("v0")), Err(AdoptError::Busy(name)) if name == "v0"));
    assert!(!shown().contains("inet"), "the second one changes nothing");
    drop(adopted);
    assert_eq!(shown(), before);
}

#[test]
fn addresses_of_a_killed_process_are_put_back_by_the_next() {
    if !enter_with_interface() {
        return;
    }
    let mut adopted = adopt(Some("v0")).unwrap();
    adopted.guard.take().unwrap();
    restore_left();
    assert!(!shown().contains("inet"), "a machine that lives keeps them");
    // As after SIGKILL: the lock is gone, the addresses are off, the file is there.
    assert!(adopted.guard.taken.take().is_some());
    let (taken, file) = (adopted.addresses.clone(), StateFile::of(adopted.guard.link.index));
    drop(adopted);
    assert!(!shown().contains("inet") && file.read().is_some());
    restore_left();
    assert_eq!(adopt(Some("v0")).unwrap().addresses, taken);
    assert!(shown().contains("10.0.0.2/24") && shown().contains("default via fd00::1"), "{}", shown());
    assert!(file.read().is_none());
}

#[test]
fn state_of_an_earlier_interface_with_the_same_number_is_dropped() {
    if !enter_with_interface() {
        return;
    }
    let mut adopted = adopt(Some("v0")).unwrap();
    adopted.guard.take().unwrap();
    adopted.guard.taken = None;
    let file = StateFile::of(adopted.guard.link.index);
    drop(adopted);
    ip("link set v0 address 02:00:00:00:00:08");
    restore_left();
    assert!(!shown().contains("10.0.0.2") && file.read().is_none());
}

#[test]
fn unusable_interfaces_are_rejected_by_name() {
    if !enter() {
        return;
    }
    assert!(matches!(adopt(None), Err(AdoptError::None)));
    ip("link add v0 type veth peer name v1");
    ip("link set lo up");
    assert!(matches!(adopt(None), Err(AdoptError::None)), "both are down");
    assert!(matches!(adopt(Some("v0")), Err(AdoptError::Down(_))));
    assert!(matches!(adopt(Some("lo")), Err(AdoptError::NotEthernet(_))));
    assert!(matches!(adopt(Some("v9")), Err(AdoptError::Missing(_))));
    ip("link set v0 up");
    ip("link set v1 up");
    assert!(matches!(adopt(None), Err(AdoptError::Several(names)) if names.contains("v0") && names.contains("v1")));
}

#[test]
fn interface_that_is_gone_at_the_end_is_no_error() {
    if !enter_with_interface() {
        return;
    }
    let mut adopted = adopt(Some("v0")).unwrap();
    adopted.guard.take().unwrap();
    ip("link delete v0");
    drop(adopted);
}
