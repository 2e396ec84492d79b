// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Moves frames between the queues and the tap. Runs on the `io` event loop.

use super::super::chain::Chain;
use super::super::queue::{Served, Virtqueue};
use super::super::{Activation, Worker};
use super::packet::{FRAME_MAXIMUM, FRAME_MINIMUM, HEADER_SIZE, Header, may_be_sent};
use super::tap::Tap;
use crate::GuestMemory;
use crate::event_loop::Source;
use crate::guest_warn;
use crate::interrupt::Interrupt;
use std::io::ErrorKind;
use std::mem::offset_of;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use vmm_sys_util::epoll::EventSet;

/// Tokens: the two queues by their number, and the tap.
const RECEIVE: u32 = 0;
const TRANSMIT: u32 = 1;
const TAP: u32 = 2;
/// Frames from the tap that are dropped in a row before others get their turn.
const DROPS_LIMIT: u32 = 64;

/// What went through a network device since the start, seen from the guest. Monotonic, relaxed: for statistics.
#[derive(Debug, Default)]
pub struct NetCounters {
    /// Bytes of frames that the guest received.
    pub rx_bytes: AtomicU64,
    /// Frames that the guest received.
    pub rx_packets: AtomicU64,
    /// Frames to the guest that did not fit it.
    pub rx_dropped: AtomicU64,
    /// Bytes of frames that the guest sent.
    pub tx_bytes: AtomicU64,
    /// Frames that the guest sent.
    pub tx_packets: AtomicU64,
    /// Frames of the guest that were wrong, or that the host did not take.
    pub tx_dropped: AtomicU64,
}

pub(super) struct NetWorker {
    memory: GuestMemory,
    receive: Virtqueue,
    transmit: Virtqueue,
    interrupt: Interrupt,
    features: u64,
    backend: Backend,
}

/// The host's side.
struct Backend {
    tap: Arc<Tap>,
    link_up: Arc<AtomicBool>,
    counters: Arc<NetCounters>,
    /// The tap did not say that it would block when it was last read.
    readable: bool,
    /// One packet, header and frame, with room for a byte too many.
    packet: Box<[u8]>,
}

impl NetWorker {
    pub(super) fn new(
        activation: Activation,
        tap: Arc<Tap>,
        link_up: Arc<AtomicBool>,
        counters: Arc<NetCounters>,
    ) -> Self {
        let Activation { features, memory, mut queues, interrupt } = activation;
        let (receive, transmit) = (queues.remove(0), queues.remove(0));
        let packet = vec![0; HEADER_SIZE + FRAME_MAXIMUM + 1].into_boxed_slice();
        let backend = Backend { tap, link_up, counters, readable: true, packet };
        Self { memory, receive, transmit, interrupt, features, backend }
    }

    fn receive(&mut self) {
        let Self { memory, receive, backend, .. } = self;
        let was_up = backend.is_up();
        receive.serve(memory, |chain| backend.fill(chain));
        if was_up && !backend.is_up() {
            self.interrupt.config();
        }
    }

    fn transmit(&mut self) {
        let Self { memory, transmit, backend, features, .. } = self;
        transmit.serve(memory, |chain| backend.send(chain, *features));
    }
}

impl Worker for NetWorker {
    fn sources(&self) -> Vec<Source> {
        vec![
            Source::kick(self.receive.kick(), RECEIVE),
            Source::kick(self.transmit.kick(), TRANSMIT),
            Source::changes(&*self.backend.tap, TAP),
        ]
    }

    fn start(&mut self) {
        self.transmit();
        self.receive();
    }

    fn process(&mut self, token: u32, _: EventSet) {
        match token {
            RECEIVE => self.receive(),
            TRANSMIT => self.transmit(),
            _ => {
                self.backend.readable = self.backend.is_up();
                self.start();
            }
        }
    }
}

impl Backend {
    fn is_up(&self) -> bool {
        self.link_up.load(Ordering::SeqCst)
    }

    /// Puts the next frame from the tap into `chain`.
    fn fill(&mut self, chain: &mut Chain<'_>) -> Served {
        let room = chain.writable.remaining();
        for _ in 0..DROPS_LIMIT {
            if !self.readable {
                return Served::Later;
            }
            let length = match self.tap.receive(&mut self.packet) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.readable = false;
                    if error.kind() != ErrorKind::WouldBlock {
                        // The tap was deleted; an interface that is merely down has nothing to read.
                        guest_warn!("net: the tap is gone: {error}");
                        self.link_up.store(false, Ordering::SeqCst);
                    }
                    return Served::Later;
                }
            };
            if length < HEADER_SIZE + FRAME_MINIMUM || length == self.packet.len() || length > room {
                self.counters.rx_dropped.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            // The kernel leaves this field as it was.
            let buffers = offset_of!(Header, buffers);
            self.packet[buffers..HEADER_SIZE].copy_from_slice(&1u16.to_le_bytes());
            chain.writable.write_all(&self.packet[..length]).expect("the length was compared with the room");
            self.counters.rx_bytes.fetch_add((length - HEADER_SIZE) as u64, Ordering::Relaxed);
            self.counters.rx_packets.fetch_add(1, Ordering::Relaxed);
            return Served::Done(length as u32);
        }
        // The buffer is too small for what comes: give it back, so that this neither spins nor stalls.
        Served::Done(0)
    }

    /// Hands the frame in `chain` to the tap.
    fn send(&mut self, chain: &mut Chain<'_>, features: u64) -> Served {
        let length = chain.readable.remaining();
        let packet = self.packet.get_mut(..length).filter(|packet| packet.len() <= HEADER_SIZE + FRAME_MAXIMUM);
        let Some(packet) = packet else { return self.drop_sent() };
        chain.readable.read_exact(packet).expect("no more is asked for than remains");
        if !may_be_sent(packet, features) {
            return self.drop_sent();
        }
        match self.tap.send(packet) {
            Ok(()) => {
                self.counters.tx_bytes.fetch_add((length - HEADER_SIZE) as u64, Ordering::Relaxed);
                self.counters.tx_packets.fetch_add(1, Ordering::Relaxed);
                Served::Done(0)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Served::Later,
            // Down, gone, or the kernel does not like the frame: what a cable does with it.
            Err(_) => self.drop_sent(),
        }
    }

    fn drop_sent(&self) -> Served {
        self.counters.tx_dropped.fetch_add(1, Ordering::Relaxed);
        Served::Done(0)
    }
}
