// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Moves frames between the queues and the tap. Runs on the `io` event loop.

use super::super::chain::Chain;
use super::super::queue::{Served, Virtqueue};
use super::super::{Activation, DeviceCounters, Worker};
use super::packet::{HEADER_SIZE, MAX_FRAME_BYTES, MIN_FRAME_BYTES, may_be_sent, prepare_received};
use super::tap::Tap;
use crate::event_loop::Source;
use crate::guest_warn;
use crate::interrupt::Interrupt;
use crate::turn::Turn;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use vmm_sys_util::epoll::EventSet;

/// Tokens: the two queues by their number, and the tap.
const RECEIVE: u32 = 0;
const TRANSMIT: u32 = 1;
const TAP: u32 = 2;
/// Frames from the tap that are dropped in a row before a buffer is returned empty.
const MAX_DROPS: u32 = 64;

/// What went through a network device since the start, seen from the guest. Monotonic, relaxed: for
/// statistics.
#[derive(Debug, Default)]
pub struct NetCounters {
    /// Bytes of frames that the guest received.
    pub rx_bytes: AtomicU64,
    /// Frames that the guest received.
    pub rx_packets: AtomicU64,
    /// Frames to the guest that did not fit its buffers, or that it cannot handle.
    pub rx_dropped: AtomicU64,
    /// Bytes of frames that the guest sent.
    pub tx_bytes: AtomicU64,
    /// Frames that the guest sent.
    pub tx_packets: AtomicU64,
    /// Invalid frames of the guest, and those that the host did not accept.
    pub tx_dropped: AtomicU64,
}

impl DeviceCounters for NetCounters {
    fn snapshot(&self) -> Vec<(&'static str, u64)> {
        let counters = [
            ("rx_bytes", &self.rx_bytes),
            ("tx_bytes", &self.tx_bytes),
            ("rx_packets", &self.rx_packets),
            ("tx_packets", &self.tx_packets),
            ("rx_dropped", &self.rx_dropped),
            ("tx_dropped", &self.tx_dropped),
        ];
        counters.map(|(name, counter)| (name, counter.load(Ordering::Relaxed))).to_vec()
    }
}

pub(super) struct NetWorker {
    receive: Virtqueue,
    transmit: Virtqueue,
    interrupt: Interrupt,
    backend: Backend,
}

/// The host's side.
struct Backend {
    tap: Arc<Tap>,
    link_up: Arc<AtomicBool>,
    counters: Arc<NetCounters>,
    /// Features that both sides have.
    features: u64,
    /// The tap did not return `WouldBlock` when it was last read.
    readable: bool,
    /// One packet, header and frame, and a byte by which a packet that is too long shows.
    packet: Box<[u8]>,
}

impl NetWorker {
    pub(super) fn new(
        activation: Activation,
        tap: Arc<Tap>,
        link_up: Arc<AtomicBool>,
        counters: Arc<NetCounters>,
    ) -> Self {
        let Activation { features, mut queues, interrupt, .. } = activation;
        let (receive, transmit) = (queues.remove(0), queues.remove(0));
        let packet = vec![0; HEADER_SIZE + MAX_FRAME_BYTES + 1].into_boxed_slice();
        let backend = Backend { tap, link_up, counters, features, readable: true, packet };
        Self { receive, transmit, interrupt, backend }
    }

    fn receive(&mut self, turn: &mut Turn<'_>) {
        let Self { receive, backend, .. } = self;
        let was_up = backend.is_up();
        receive.serve(turn, |chain| backend.fill(chain));
        if was_up && !backend.is_up() {
            self.interrupt.signal_config();
        }
    }

    fn transmit(&mut self, turn: &mut Turn<'_>) {
        let Self { transmit, backend, .. } = self;
        transmit.serve(turn, |chain| backend.send(chain));
    }
}

impl Worker for NetWorker {
    fn sources(&self) -> Vec<Source> {
        vec![
            Source::event(self.receive.queue_event(), RECEIVE),
            Source::event(self.transmit.queue_event(), TRANSMIT),
            Source::changes(&*self.backend.tap, TAP),
        ]
    }

    fn start(&mut self, turn: &mut Turn<'_>) {
        self.transmit(turn);
        self.receive(turn);
    }

    fn process(&mut self, token: u32, _: EventSet, turn: &mut Turn<'_>) {
        match token {
            RECEIVE => self.receive(turn),
            TRANSMIT => self.transmit(turn),
            _ => {
                self.backend.readable = self.backend.is_up();
                self.start(turn);
            }
        }
    }
}

impl Backend {
    fn is_up(&self) -> bool {
        self.link_up.load(Ordering::SeqCst)
    }

    /// Writes the next frame from the tap to `chain`.
    fn fill(&mut self, chain: &mut Chain<'_>) -> Served {
        let space = chain.writable.remaining();
        for _ in 0..MAX_DROPS {
            if !self.readable {
                return Served::Later;
            }
            let length = match self.tap.receive(&mut self.packet) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.readable = false;
                    if error.kind() != ErrorKind::WouldBlock {
                        // The tap was deleted. An interface that is merely down returns
                        // `WouldBlock`.
                        guest_warn!("net: the tap is gone: {error}");
                        self.link_up.store(false, Ordering::SeqCst);
                    }
                    return Served::Later;
                }
            };
            let fits = (HEADER_SIZE + MIN_FRAME_BYTES..self.packet.len()).contains(&length) && length <= space;
            if !fits || !prepare_received(&mut self.packet[..length], self.features) {
                self.counters.rx_dropped.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            chain.writable.write_all(&self.packet[..length]).expect("the length was compared with the space");
            self.counters.rx_bytes.fetch_add((length - HEADER_SIZE) as u64, Ordering::Relaxed);
            self.counters.rx_packets.fetch_add(1, Ordering::Relaxed);
            return Served::Done(length as u32);
        }
        // The buffer is too small for what comes. Return it, so that this neither spins nor stalls.
        Served::Done(0)
    }

    /// Sends the frame in `chain` to the tap.
    fn send(&mut self, chain: &mut Chain<'_>) -> Served {
        let length = chain.readable.remaining();
        let packet = self.packet.get_mut(..length).filter(|packet| packet.len() <= HEADER_SIZE + MAX_FRAME_BYTES);
        let Some(packet) = packet else { return self.drop_sent() };
        chain.readable.read_exact(packet).expect("the packet has the length of the chain");
        if !may_be_sent(packet, self.features) {
            return self.drop_sent();
        }
        match self.tap.send(packet) {
            Ok(()) => {
                self.counters.tx_bytes.fetch_add((length - HEADER_SIZE) as u64, Ordering::Relaxed);
                self.counters.tx_packets.fetch_add(1, Ordering::Relaxed);
                Served::Done(0)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Served::Later,
            // The tap is down or gone, or the kernel rejects the frame: it is lost, as on a cable.
            Err(_) => self.drop_sent(),
        }
    }

    fn drop_sent(&self) -> Served {
        self.counters.tx_dropped.fetch_add(1, Ordering::Relaxed);
        Served::Done(0)
    }
}
