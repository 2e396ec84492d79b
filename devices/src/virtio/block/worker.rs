// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Serves the requests of one disk, one after the other, each wholly done before it is acknowledged. Runs on the disk's
//! own event loop.

use super::super::chain::Chain;
use super::super::queue::{Served, Virtqueue};
use super::super::{Activation, Worker};
use super::ID_SIZE;
use super::disk::Disk;
use super::request::{Limits, Operation, Request, Status};
use crate::GuestMemory;
use crate::event_loop::Source;
use crate::guest_warn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use virtio_bindings::virtio_blk::{VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_WRITE_ZEROES};
use vmm_sys_util::epoll::EventSet;

pub(super) struct BlockWorker {
    memory: GuestMemory,
    requests: Virtqueue,
    disk: Arc<Disk>,
    limits: Limits,
}

impl BlockWorker {
    pub(super) fn new(mut activation: Activation, disk: Arc<Disk>) -> Self {
        let limits = Limits {
            size: disk.size,
            read_only: disk.read_only,
            discard: activation.has_feature(VIRTIO_BLK_F_DISCARD),
            write_zeroes: activation.has_feature(VIRTIO_BLK_F_WRITE_ZEROES),
        };
        Self { requests: activation.queues.remove(0), memory: activation.memory, disk, limits }
    }
}

impl Worker for BlockWorker {
    fn sources(&self) -> Vec<Source> {
        vec![Source::kick(self.requests.kick(), 0)]
    }

    fn start(&mut self) {
        let Self { memory, requests, disk, limits } = self;
        requests.serve(memory, |chain| serve(chain, disk, *limits));
    }

    fn process(&mut self, _: u32, _: EventSet) {
        self.start();
    }

    /// What the guest was told is written stays written even if the host goes down next.
    fn retire(&mut self) {
        if let Err(error) = self.disk.flush() {
            guest_warn!("disk {}: cannot be flushed: {error}", self.disk.serial);
        }
    }
}

fn serve(chain: &mut Chain<'_>, disk: &Disk, limits: Limits) -> Served {
    let Some(mut request) = Request::parse(chain, limits) else { return Served::Done(0) };
    let room = chain.writable.remaining() as u32;
    let status = request.operation.and_then(|operation| {
        execute(operation, disk).map_err(|error| {
            guest_warn!("disk {}: {error}", disk.serial);
            Status::IoError
        })
    });
    let status = status.map_or_else(|refused| refused, |()| Status::Ok);
    if status == Status::IoError {
        disk.counters.errors.fetch_add(1, Ordering::Relaxed);
    }
    request.status.write_all(&[status as u8]).expect("the status writer was split off with one byte");
    // After an error only the status was written, and a driver that looks at the length must not take more for data.
    Served::Done(if status == Status::Ok { room } else { 1 })
}

fn execute(operation: Operation<'_>, disk: &Disk) -> std::io::Result<()> {
    match operation {
        Operation::Read { offset, mut data } => disk.read(offset, &mut data),
        Operation::Write { offset, mut data } => disk.write(offset, &mut data),
        Operation::Flush => disk.flush(),
        Operation::GetId { mut data } => {
            let mut id = [0; ID_SIZE];
            id[..disk.serial.len()].copy_from_slice(disk.serial.as_bytes());
            data.write_all(&id).map_err(|_| std::io::ErrorKind::InvalidInput.into())
        }
        Operation::Discard(ranges) => ranges.iter().try_for_each(|range| disk.discard(range.offset, range.length)),
        Operation::WriteZeroes(ranges) => {
            ranges.iter().try_for_each(|range| disk.write_zeroes(range.offset, range.length, range.unmap))
        }
    }
}
