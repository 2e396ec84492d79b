// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A host inside of the process beside a stream socket: which frames it takes, when its own reach the guest.

use super::bench::*;
use super::*;
use crate::rate_limit::RateLimits;
use crate::testing::Driver;
use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Answers each frame whose first byte is 7 with itself, twice; the second a millisecond later.
#[derive(Debug, Default)]
struct Echo {
    now: VecDeque<Vec<u8>>,
    later: VecDeque<Vec<u8>>,
}

impl InternalHost for Echo {
    fn receive(&mut self, frame: &[u8]) -> bool {
        if frame[0] != 7 {
            return false;
        }
        self.now.push_back(frame.to_vec());
        self.later.push_back([frame, b"later"].concat());
        true
    }

    fn send(&mut self, buffer: &mut Vec<u8>) -> bool {
        let next = self.now.pop_front();
        if next.is_none() {
            self.now.append(&mut self.later);
        }
        next.is_some_and(|frame| {
            buffer.extend(frame);
            true
        })
    }

    fn next_timeout(&mut self) -> Option<Duration> {
        (!self.now.is_empty()).then_some(Duration::from_millis(1))
    }
}

fn bench_with_echo(backend: Backend) -> Bench {
    let config = NetConfig {
        name: "net-0".to_owned(),
        backend,
        internal_host: Some(Box::new(Echo::default())),
        mac: MAC,
        mtu: None,
        limits: RateLimits::default(),
    };
    let net = Net::open(config).unwrap();
    let mut bench = Bench { handle: net.handle(), net, driver: Driver::new(&[256, 256]), worker: None };
    bench.activate(0);
    bench
}

fn frame(first: u8) -> Vec<u8> {
    let mut frame = noise(60, 1);
    frame[0] = first;
    frame
}

#[test]
fn frames_of_an_internal_host_pass_beside_those_of_the_backend() {
    let (own, peer) = UnixStream::pair().unwrap();
    let mut bench = bench_with_echo(StreamSocket::new(own.into()).unwrap().into());
    let mut buffers = bench.offer(3, 1526);
    assert_eq!(bench.send(&packet(&frame(7))), (1, 0));
    assert_eq!(&bench.received(&mut buffers).expect("an answer needs no event")[12..], frame(7));
    assert_eq!(&bench.wait_received(&mut buffers)[12..], [&frame(7)[..], b"later"].concat());
    // Only the other frame is on the socket, behind its length.
    assert_eq!(bench.send(&packet(&frame(8))), (2, 0));
    let mut sent = [0; 64];
    std::io::Read::read_exact(&mut &peer, &mut sent).unwrap();
    assert_eq!((&sent[..4], &sent[4..]), (&60_u32.to_be_bytes()[..], &frame(8)[..]));
    std::io::Write::write_all(&mut &peer, &[&60_u32.to_be_bytes()[..], &frame(9)].concat()).unwrap();
    assert_eq!(&bench.wait_received(&mut buffers)[12..], frame(9));
    assert_eq!(bench.passed(), (3, 0));
}

#[test]
fn frames_of_an_internal_host_wait_for_buffers() {
    let mut bench = bench_with_echo(Backend::None);
    assert_eq!(bench.status(), 1, "the link is up");
    bench.send(&packet(&frame(7)));
    bench.backend_changed();
    let mut buffers = bench.offer(1, 1526);
    assert_eq!(&bench.received(&mut buffers).expect("it has waited")[12..], frame(7));
    // Without another host on the link, other frames are lost.
    assert_eq!(bench.send(&packet(&frame(8))), (1, 1));
    // The later one waits now. A driver that starts again does not get what was meant for the one before, but the next.
    bench.send(&packet(&frame(7)));
    bench.activate(0);
    let mut buffers = bench.offer(2, 1526);
    assert_eq!(&bench.wait_received(&mut buffers)[12..], frame(7));
}
