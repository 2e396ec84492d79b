// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The client against servers in memory, with a clock of numbers.

use super::client::{Action, Client};
use super::frame::tests::reply_frame;
use super::message::option;
use super::message_tests::{ACK, GOOD, MAC, Options, reply};
use alloc::vec::Vec;

const OFFER: u8 = 2;
const NAK: u8 = 6;
const HOUR: u64 = 3_600_000;
const ADDRESS: [u8; 4] = [10, 0, 0, 9];
const OTHER_SERVER: (u8, &[u8]) = (option::SERVER, &[10, 0, 0, 2]);

/// A message of the client's.
struct Sent {
    to: [u8; 4],
    from: [u8; 4],
    to_mac: [u8; 6],
    xid: u32,
    message: Vec<u8>,
}

impl Sent {
    fn option(&self, code: u8) -> Option<&[u8]> {
        let mut rest = &self.message[240..];
        while let [found, length, ..] = *rest
            && found != option::END
        {
            let value = &rest[2..2 + usize::from(length)];
            if found == code {
                return Some(value);
            }
            rest = &rest[2 + usize::from(length)..];
        }
        None
    }

    fn kind(&self) -> u8 {
        self.option(option::MESSAGE_TYPE).unwrap()[0]
    }
}

fn sent(action: Option<Action>) -> Sent {
    let Some(Action::Send(frame)) = action else { panic!("{action:?}") };
    let message = frame[42..].to_vec();
    Sent {
        to: frame[30..34].try_into().unwrap(),
        from: frame[26..30].try_into().unwrap(),
        to_mac: frame[..6].try_into().unwrap(),
        xid: u32::from_be_bytes(message[4..8].try_into().unwrap()),
        message,
    }
}

/// The server's reply to `request`.
fn answer(client: &mut Client, request: &Sent, kind: u8, options: Options<'_>, now: u64) -> Option<Action> {
    client.receive(&reply_frame(MAC, &reply(request.xid, kind, ADDRESS, options)), now)
}

fn bound_at(now: u64, options: Options<'_>) -> Client {
    let mut client = Client::new(MAC, "web", 1, now);
    let discover = sent(client.poll(now));
    let request = sent(answer(&mut client, &discover, OFFER, options, now));
    let action = answer(&mut client, &request, ACK, options, now);
    assert!(matches!(&action, Some(Action::Configure(_))), "{action:?}");
    client
}

/// Options that replace those of an hour at 10.0.0.1.
fn with(changed: (u8, &'static [u8])) -> Vec<(u8, &'static [u8])> {
    GOOD.iter().copied().filter(|(code, _)| *code != changed.0).chain([changed]).collect()
}

#[test]
fn address_is_discovered_requested_and_bound() {
    let mut client = Client::new(MAC, "web", 1, 500);
    assert!(client.expects_frames());
    let discover = sent(client.poll(500));
    assert_eq!((discover.kind(), discover.from, discover.to), (1, [0; 4], [255; 4]));
    assert_eq!((discover.to_mac, discover.option(option::HOST_NAME)), ([255; 6], Some(&b"web"[..])));
    assert_eq!(client.poll(500), None);
    let request = sent(answer(&mut client, &discover, OFFER, GOOD, 600));
    assert_eq!((request.kind(), request.to, request.xid), (3, [255; 4], discover.xid));
    assert_eq!(request.option(option::REQUESTED_ADDRESS), Some(&ADDRESS[..]));
    assert_eq!(request.option(option::SERVER), Some(&[10, 0, 0, 1][..]));
    let Some(Action::Configure(settings)) = answer(&mut client, &request, ACK, GOOD, 700) else { panic!("no lease") };
    assert_eq!((settings.address.address, client.expects_frames()), ("10.0.0.9".parse().unwrap(), false));
    assert_eq!((client.due(), client.poll(700)), (Some(600 + HOUR / 2), None));
}

#[test]
fn requests_are_repeated_with_growing_delays() {
    let mut client = Client::new(MAC, "", 7, 0);
    let mut times = Vec::new();
    while let Some(due) = client.due().filter(|due| *due < 200_000) {
        assert_eq!(sent(client.poll(due)).kind(), 1);
        times.push(due);
    }
    for (number, pair) in times.windows(2).enumerate() {
        let delay = 1000 << number.min(6);
        assert!((delay * 3 / 4..delay * 5 / 4).contains(&(pair[1] - pair[0])), "{times:?}");
    }
    assert!(times.len() > 6, "{times:?}");

    // A server that offers and does not acknowledge.
    let mut client = Client::new(MAC, "", 7, 0);
    let discover = sent(client.poll(0));
    let request = sent(answer(&mut client, &discover, OFFER, GOOD, 0));
    assert_eq!(request.option(option::HOST_NAME), None);
    for _ in 0..3 {
        let due = client.due().unwrap();
        assert_eq!(sent(client.poll(due)).kind(), 3);
    }
    let due = client.due().unwrap();
    let again = sent(client.poll(due));
    assert!(again.kind() == 1 && again.xid != discover.xid && due < 30_000, "{due}");
}

#[test]
fn lease_is_renewed_by_its_server() {
    let mut client = bound_at(0, GOOD);
    let request = sent(client.poll(HOUR / 2));
    assert_eq!((request.kind(), request.from, request.to), (3, ADDRESS, [10, 0, 0, 1]));
    assert_eq!(request.to_mac, [2, 0, 0, 0, 0, 2], "the server's, without a question for it");
    assert_eq!((request.option(option::SERVER), request.option(option::REQUESTED_ADDRESS)), (None, None));
    assert_eq!(request.message[10..16], [0, 0, 10, 0, 0, 9]);
    // Another server's answer, and one with another address.
    assert_eq!(answer(&mut client, &request, ACK, &with(OTHER_SERVER), HOUR / 2), None);
    let other = reply(request.xid, ACK, [10, 0, 0, 10], GOOD);
    assert_eq!(client.receive(&reply_frame(MAC, &other), HOUR / 2), None);
    // The request is repeated before every server is asked.
    let due = client.due().unwrap();
    assert_eq!((due, sent(client.poll(due)).to), (HOUR / 2 + HOUR * 3 / 16, [10, 0, 0, 1]));
    let action = answer(&mut client, &request, ACK, GOOD, due);
    assert!(matches!(action, Some(Action::Configure(_))), "{action:?}");
    assert_eq!(client.due(), Some(HOUR), "it counts from the request");
}

#[test]
fn lease_is_renewed_by_every_server_and_then_expires() {
    let mut client = bound_at(0, GOOD);
    let rebinding = HOUR / 8 * 7;
    while client.due().unwrap() < rebinding {
        let due = client.due().unwrap();
        let _ = sent(client.poll(due));
    }
    let request = sent(client.poll(rebinding));
    assert_eq!((request.from, request.to, request.to_mac), (ADDRESS, [255; 4], [255; 6]));
    let mut rebound = bound_at(0, GOOD);
    let request = sent(rebound.poll(rebinding));
    let action = answer(&mut rebound, &request, ACK, &with(OTHER_SERVER), rebinding);
    assert!(matches!(action, Some(Action::Configure(_))), "{action:?}");
    assert_eq!(sent(rebound.poll(rebinding + HOUR / 2)).to, [10, 0, 0, 2]);

    loop {
        let due = client.due().unwrap();
        match client.poll(due) {
            Some(Action::Send(_)) => assert!(due < HOUR),
            action => break assert_eq!((action, due), (Some(Action::Remove), HOUR)),
        }
    }
    assert_eq!((sent(client.poll(HOUR)).kind(), client.address()), (1, None));
    // A machine that was paused for longer than its lease.
    let mut paused = bound_at(0, GOOD);
    assert_eq!(paused.poll(2 * HOUR), Some(Action::Remove));
}

#[test]
fn lease_that_lasts_for_ever_is_not_renewed() {
    let mut client = bound_at(0, &with((option::LEASE_TIME, &[255; 4])));
    assert_eq!((client.due(), client.poll(u64::MAX)), (None, None));
}

#[test]
fn shortest_lease_is_renewed_without_a_flood() {
    let second: Options<'_> = &with((option::LEASE_TIME, &[0, 0, 0, 1]));
    let mut client = bound_at(0, second);
    let (mut now, mut messages) = (0, 0);
    while now < 60_000 {
        now = client.due().unwrap();
        match client.poll(now) {
            Some(Action::Send(_)) => messages += 1,
            action => assert_eq!(action, Some(Action::Remove)),
        }
    }
    assert!(messages < 20, "{messages}");
}

#[test]
fn rejected_request_begins_again_later() {
    let mut client = Client::new(MAC, "", 3, 0);
    let mut now = 0;
    // A server that offers what it rejects.
    for _ in 0..8 {
        let discover = sent(client.poll(now));
        let request = sent(answer(&mut client, &discover, OFFER, GOOD, now));
        assert_eq!(
            answer(&mut client, &request, NAK, &with(OTHER_SERVER), now),
            None,
            "another server rejects nothing"
        );
        assert_eq!(answer(&mut client, &request, NAK, GOOD, now), None);
        assert_eq!(client.poll(now), None);
        now = client.due().unwrap();
    }
    assert!(now > 100_000, "{now}");
    let mut client = bound_at(0, GOOD);
    let request = sent(client.poll(HOUR / 2));
    assert_eq!(answer(&mut client, &request, NAK, GOOD, HOUR / 2), Some(Action::Remove));
}

#[test]
fn answers_without_a_request_are_ignored() {
    let mut client = Client::new(MAC, "", 1, 0);
    let discover = sent(client.poll(0));
    assert_eq!(answer(&mut client, &discover, ACK, GOOD, 0), None, "no request was sent");
    assert_eq!(answer(&mut client, &discover, NAK, GOOD, 0), None);
    let other = Sent { xid: discover.xid ^ 1, ..discover };
    assert_eq!(answer(&mut client, &other, OFFER, GOOD, 0), None);
    let discover = Sent { xid: other.xid ^ 1, ..other };
    // An offer that would not make a lease does not take the place of a good one.
    assert_eq!(answer(&mut client, &discover, OFFER, &with((option::LEASE_TIME, &[0; 4])), 0), None);
    let request = sent(answer(&mut client, &discover, OFFER, GOOD, 0));
    assert_eq!(answer(&mut client, &discover, OFFER, GOOD, 0), None, "the second offer");
    assert_eq!(answer(&mut client, &request, ACK, &with(OTHER_SERVER), 0), None);
    let moved = reply(request.xid, ACK, [10, 0, 0, 10], GOOD);
    assert_eq!(client.receive(&reply_frame(MAC, &moved), 0), None);
    assert!(answer(&mut client, &request, ACK, GOOD, 0).is_some());
    assert_eq!(answer(&mut client, &request, ACK, GOOD, 0), None, "the second one");
}

#[test]
fn release_gives_the_address_back() {
    assert_eq!(Client::new(MAC, "", 1, 0).release(), None);
    let client = bound_at(0, GOOD);
    let release = sent(client.release().map(Action::Send));
    assert_eq!(
        (release.kind(), release.from, release.to, release.to_mac),
        (7, ADDRESS, [10, 0, 0, 1], [2, 0, 0, 0, 0, 2])
    );
    assert_eq!((release.option(option::SERVER), &release.message[12..16]), (Some(&[10, 0, 0, 1][..]), &ADDRESS[..]));
}
