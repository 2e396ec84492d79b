// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Every device against a hostile guest: nothing panics, nothing hangs, and the used ring grows
//! only by what was taken. The fuzz target does the same for longer.

use super::block::{Block, BlockConfig};
use super::console::{Console, PortConfig, PortMonitor, PortOutput};
use super::fs::{Fs, FsConfig};
use super::net::{Net, NetConfig, Tap};
use super::rng::Rng;
use super::vsock::{HostSockets, Vsock, VsockConfig};
use super::*;
use crate::log_sink::LogSink;
use crate::rate_limit::RateLimits;
use crate::testing::Driver;
use proptest::prelude::*;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use vm_memory::{Bytes, GuestAddress};

struct NoLog;

impl LogSink for NoLog {
    fn write(&self, _: &[u8]) {}
}

/// One device of each type.
pub(super) fn devices() -> Vec<Box<dyn VirtioDevice>> {
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 20).unwrap();
    let path = "hostile".into();
    let block = BlockConfig {
        file,
        path,
        more: Vec::new(),
        read_only: false,
        scratch: true,
        serial: "hostile".to_owned(),
        limits: RateLimits::default(),
    };
    let port = |name, is_console| PortConfig {
        name,
        is_console,
        input: None,
        output: Some(PortOutput::Log(Arc::new(NoLog))),
        monitor: Arc::new(PortMonitor::new().unwrap()),
    };
    vec![
        Box::new(Rng::new()),
        Box::new(Block::open(block).unwrap()),
        Box::new(Console::new(vec![port("console", true), port("stdio", false)])),
        Box::new(
            Net::open(NetConfig {
                name: "net-0".to_owned(),
                backend: Tap::pairs(2).0.into(),
                internal_host: None,
                mac: [2; 6],
                mtu: None,
                limits: RateLimits::default(),
            })
            .unwrap(),
        ),
        Box::new(Vsock::open(VsockConfig { guest_cid: 3, sockets: host_sockets() }).unwrap()),
        Box::new(Fs::open(share()).unwrap()),
    ]
}

/// A directory that is removed, so that no file can be made in it.
fn share() -> FsConfig {
    let directory = std::fs::File::open(tempfile::tempdir().unwrap().path()).unwrap().into();
    FsConfig {
        tag: "share0".to_owned(),
        directory,
        only: None,
        read_only: false,
        max_descriptors: 16,
        closed: [].into(),
    }
}

/// Sockets in a directory that is removed, so that no program connects.
fn host_sockets() -> HostSockets {
    let directory = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(directory.path().join("v")).unwrap();
    listener.set_nonblocking(true).unwrap();
    let descriptor = std::fs::File::open(directory.path()).unwrap();
    HostSockets { listener: listener.into(), directory: descriptor.into(), is_entered: false, name: "v".into() }
}

/// One write of the guest, most often near the start of a queue's tables and rings.
fn scribble() -> impl Strategy<Value = (u64, u64)> {
    let near = (1..7u64, prop_oneof![0..0x80u64, 0x5000..0x5040u64, 0x8000..0x8040u64]);
    let place = prop_oneof![4 => near.prop_map(|(queue, at)| queue * 0x1_0000 + at), 1 => 0..0x40_0000u64];
    let small = (0..4u64, 0..9u64, 0..0x40_0000u64).prop_map(|(flags, next, low)| low | flags << 32 | next << 48);
    (place, prop_oneof![any::<u64>(), small, 0..0x40_0000u64])
}

/// A queue, or one of the other sources of a console or a network.
fn token() -> impl Strategy<Value = u32> {
    prop_oneof![0..8u32, 1 << 16..(1 << 16) + 4u32]
}

fn write(driver: &Driver, (place, value): (u64, u64)) {
    // A write past the end of memory does nothing, as in a guest.
    let _ = driver.memory.write_slice(&value.to_le_bytes(), GuestAddress(place));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn devices_survive_any_rings_that_a_guest_can_write(
        rounds in prop::collection::vec((prop::collection::vec(scribble(), 1..12), token()), 1..6),
        features in any::<u64>(),
    ) {
        for mut device in devices() {
            let identity = device.identity().clone();
            let driver = Driver::new(&identity.queue_sizes);
            let mut worker = device.activate(driver.activation(features & identity.features)).unwrap().remove(0);
            for (writes, token) in &rounds {
                writes.iter().for_each(|&each| write(&driver, each));
                worker.process(*token, EventSet::IN, &mut Turn::unlimited());
            }
            worker.drain();
        }
    }
}

/// Ends the other thread even when a device panics.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Another vCPU changes descriptors and indices while the device reads them.
#[test]
fn devices_survive_descriptors_that_change_during_reads() {
    for mut device in devices() {
        let identity = device.identity().clone();
        let mut driver = Driver::new(&identity.queue_sizes);
        let mut worker = device.activate(driver.activation(identity.features)).unwrap().remove(0);
        let (memory, stop) = (driver.memory.clone(), AtomicBool::new(false));
        let mut returned = 0;
        std::thread::scope(|scope| {
            let _stop = StopOnDrop(&stop);
            scope.spawn(|| {
                let mut turn = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let (queue, byte) = (1 + (turn >> 40) % 2, (turn >> 48) % 64);
                    let place = GuestAddress(queue * 0x1_0000 + byte);
                    memory.write_obj((turn >> 56) as u8, place).unwrap();
                }
            });
            let mut waiting = [false; 2];
            for _ in 0..2000 {
                for (queue, waiting) in waiting.iter_mut().enumerate().take(identity.queue_sizes.len()) {
                    if !*waiting {
                        driver.write_descriptor(queue, 0, 0x20_0000, 16, 1, 1);
                        driver.write_descriptor(queue, 1, 0x20_1000, 513, 2, 0);
                        driver.offer_head(queue, 0);
                    }
                    worker.process(queue as u32, EventSet::IN, &mut Turn::unlimited());
                    *waiting = driver.returned(queue).is_none();
                    returned += u32::from(!*waiting);
                }
            }
        });
        assert!(returned >= 2000, "{}: {returned}", identity.name);
        assert!(!driver.interrupt.is_reset_needed(), "only descriptors were changed");
    }
}
