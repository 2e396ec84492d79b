// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the guest reports about its network reaches the status, bounded.

use super::report::ADDRESSES_INTERVAL;
use super::tests::{end_of, receive, running, settings, started};
use super::*;
use guest_protocol::run_spec::{Dhcp, Interface};

#[test]
fn addresses_of_dhcp_are_passed_on_once_a_second() {
    let interface = Interface { dhcp: Some(Dhcp { search: true }), ..Interface::default() };
    let spec = RunSpec { interfaces: vec![interface], ..settings().spec };
    let mut supervisor = started(Settings { spec, ..settings() });
    let address = |last| IpAddr::from([10, 0, 0, last]);
    let report = |last| ToHost::Addresses(vec![address(last); 100]);
    let passed =
        |last| [Action::Addresses(vec![address(last); 64]), Action::SetTimer(TimerKind::Addresses, ADDRESSES_INTERVAL)];
    assert_eq!(receive(&mut supervisor, &report(1)), passed(1));
    assert_eq!(receive(&mut supervisor, &report(2)), []);
    assert_eq!(receive(&mut supervisor, &report(3)), []);
    assert_eq!(supervisor.on(Event::Timer(TimerKind::Addresses)), passed(3));
    assert_eq!(supervisor.on(Event::Timer(TimerKind::Addresses)), []);
    // Without DHCP the host knows them.
    let (end, _) = end_of(&receive(&mut running(), &report(1)));
    assert_eq!(end.reason, EndReason::GuestFault);
}
