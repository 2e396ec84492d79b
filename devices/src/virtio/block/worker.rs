// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Executes the requests of one disk, one after the other, in steps of at most [`MAX_STEP_BYTES`].
//! A request that is not done when a turn is over stays in flight and goes on in the next turn.
//! Runs on the disk's own event loop.

use super::super::queue::{Taken, Virtqueue};
use super::super::{Activation, Worker};
use super::ID_SIZE;
use super::disk::Disk;
use super::request::{Header, Limits, Operation, Status};
use crate::event_loop::Source;
use crate::guest_warn;
use crate::rate_limit::{Direction, Limiter};
use crate::slot::Borrowed;
use crate::turn::{MAX_STEP_BYTES, Turn};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use virtio_bindings::virtio_blk::{VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_WRITE_ZEROES};
use vmm_sys_util::epoll::EventSet;

const REQUESTS: u32 = 0;
const LIMITS: u32 = 1;

pub(super) struct BlockWorker {
    requests: Virtqueue,
    disk: Arc<Disk>,
    limits: Limits,
    /// The driver cannot flush, so that each write must be durable before it is acknowledged.
    write_through: bool,
    limiter: Borrowed<Limiter>,
    /// Begun in an earlier turn.
    current: Option<Request>,
}

/// A request in flight.
struct Request {
    taken: Taken,
    operation: Operation,
    /// Bytes of its data or its ranges that are done.
    done: u64,
}

impl BlockWorker {
    pub(super) fn new(mut activation: Activation, disk: Arc<Disk>, limiter: Borrowed<Limiter>) -> Self {
        let limits = Limits {
            size: disk.size(),
            read_only: disk.read_only,
            discard: activation.has_feature(VIRTIO_BLK_F_DISCARD),
            write_zeroes: activation.has_feature(VIRTIO_BLK_F_WRITE_ZEROES),
        };
        let write_through = !activation.has_feature(VIRTIO_BLK_F_FLUSH);
        Self { requests: activation.queues.remove(0), disk, limits, write_through, limiter, current: None }
    }

    /// Reads a new request, and answers it if it is invalid.
    fn begin(&mut self, taken: Taken) {
        let chain = taken.chain();
        if chain.writable.remaining() == 0 {
            // No space for a status.
            return self.requests.finish(taken, 0);
        }
        self.limits.size = self.disk.size();
        match Operation::parse(chain, self.limits) {
            Ok(operation) => self.current = Some(Request { taken, operation, done: 0 }),
            Err(status) => self.answer(taken, status, 0),
        }
    }

    /// Does the next step of a request, and answers it if that was the last.
    fn advance(&mut self, mut request: Request, turn: &mut Turn<'_>) {
        let outcome = self.step(&request).and_then(|bytes| {
            turn.spend(bytes);
            request.done += bytes;
            let is_done = request.done == request.operation.bytes();
            // A discard moves nothing.
            let moved = if matches!(request.operation, Operation::Discard(_)) { 0 } else { bytes };
            self.limiter.spend(direction(&request.operation), moved, u64::from(is_done));
            if is_done { self.complete(&request.operation).map(Some) } else { Ok(None) }
        });
        match outcome {
            Ok(None) => self.current = Some(request),
            Ok(Some(written)) => self.answer(request.taken, Status::Ok, written),
            Err(error) => {
                guest_warn!("disk {}: {error}", self.disk.serial);
                self.answer(request.taken, Status::IoError, 0);
            }
        }
    }

    /// Returns how many bytes of the operation were done.
    fn step(&self, request: &Request) -> std::io::Result<u64> {
        let (disk, done, mut chain) = (&*self.disk, request.done, request.taken.chain());
        match &request.operation {
            Operation::Read { offset, length } => {
                let (mut data, count) = (chain.writable, (length - done).min(MAX_STEP_BYTES));
                data.skip(done as usize);
                let _ = data.split_off(count as usize);
                disk.read(offset + done, &mut data)?;
                Ok(count)
            }
            Operation::Write { offset, length } => {
                let (mut data, count) = (chain.readable, (length - done).min(MAX_STEP_BYTES));
                data.skip(size_of::<Header>() + done as usize);
                let _ = data.split_off(count as usize);
                disk.write(offset + done, &mut data)?;
                Ok(count)
            }
            Operation::Discard(ranges) => {
                let range = ranges.step(done, MAX_STEP_BYTES);
                disk.discard(range.offset, range.length)?;
                Ok(range.length)
            }
            Operation::WriteZeroes(ranges) => {
                let range = ranges.step(done, MAX_STEP_BYTES);
                disk.write_zeroes(range.offset, range.length, range.unmap)?;
                Ok(range.length)
            }
            Operation::Flush => disk.flush().map(|()| 0),
            Operation::GetId => {
                let mut id = [0; ID_SIZE];
                id[..disk.serial.len()].copy_from_slice(disk.serial.as_bytes());
                chain.writable.write_all(&id).expect("the space for an id was checked");
                Ok(0)
            }
        }
    }

    /// All bytes are done. Returns how many were written to the guest.
    fn complete(&self, operation: &Operation) -> std::io::Result<u64> {
        let counters = &self.disk.counters;
        match operation {
            Operation::Read { length, .. } => {
                counters.read_requests.fetch_add(1, Ordering::Relaxed);
                return Ok(*length);
            }
            Operation::Write { .. } => {
                self.write_through()?;
                counters.write_requests.fetch_add(1, Ordering::Relaxed);
            }
            Operation::WriteZeroes(_) => self.write_through()?,
            Operation::GetId => return Ok(ID_SIZE as u64),
            Operation::Flush | Operation::Discard(_) => {}
        }
        Ok(0)
    }

    fn write_through(&self) -> std::io::Result<()> {
        if self.write_through { self.disk.sync() } else { Ok(()) }
    }

    /// Writes the status and returns the chain, whose first `written` bytes have been filled.
    fn answer(&mut self, taken: Taken, status: Status, written: u64) {
        if status == Status::IoError {
            self.disk.counters.errors.fetch_add(1, Ordering::Relaxed);
        }
        let mut place = taken.chain().writable;
        let space = place.remaining() as u64 - 1;
        place.skip(space as usize);
        place.write_all(&[status as u8]).expect("one byte is left");
        // The used length counts bytes from the start of the buffers: the status belongs to it only
        // if all the space before it was filled (virtio 1.3, 2.7.8.2).
        let written = if written == space { written + 1 } else { written };
        // A chain is shorter than 4 GiB.
        self.requests.finish(taken, written as u32);
    }
}

/// The limits that a request counts for.
fn direction(operation: &Operation) -> Direction {
    match operation {
        Operation::Read { .. } | Operation::GetId => Direction::ToGuest,
        _ => Direction::FromGuest,
    }
}

impl Worker for BlockWorker {
    fn sources(&self) -> Vec<Source> {
        vec![Source::event(self.requests.queue_event(), REQUESTS), self.limiter.source(LIMITS)]
    }

    fn start(&mut self, turn: &mut Turn<'_>) {
        while !turn.is_over() {
            if let Some(request) = self.current.take() {
                if !self.limiter.admits(direction(&request.operation)) {
                    // The timer of the limits wakes this worker.
                    self.current = Some(request);
                    return;
                }
                self.advance(request, turn);
            } else if let Some(taken) = self.requests.take() {
                self.begin(taken);
            } else {
                return;
            }
        }
        self.requests.reschedule();
    }

    fn process(&mut self, token: u32, _: EventSet, turn: &mut Turn<'_>) {
        if token == LIMITS {
            self.limiter.update();
        }
        self.start(turn);
    }

    /// What was acknowledged as written stays written even if the host goes down next.
    fn drain(&mut self) {
        if let Err(error) = self.disk.flush() {
            guest_warn!("disk {}: cannot be flushed: {error}", self.disk.serial);
        }
    }
}
