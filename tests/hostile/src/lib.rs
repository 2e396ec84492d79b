// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a hostile guest does to virtio-mmio devices, as a table of cases. A case is a row, a device, a
//! queue and a value. It names its clause of virtio 1.3. After each case a good request on the same
//! device, after a reset, and one on another device, without, tell a refused input from a wedged device.
//!
//! No allocation and no operating system: a runner implements [`Machine`] and calls [`run`].
#![no_std]

use core::ops::ControlFlow;

mod block_errors;
mod command_line;
mod command_rows;
mod driver;
mod request_rows;
mod ring_rows;
mod transport_rows;

pub use block_errors::{BlockErrors, block_errors};
pub use command_line::{number, windows};
pub use driver::{Driver, Fault};

/// Devices and memory, as a guest finds them.
pub trait Machine {
    /// Number of devices, at most [`MAX_DEVICES`].
    fn devices(&self) -> usize;
    /// Address of [`ARENA_SIZE`] bytes of memory for rings and buffers, aligned to a page.
    fn arena(&self) -> u64;
    /// First address after the memory that contains the arena.
    fn memory_end(&self) -> u64;
    /// Reads 1, 2, 4 or 8 bytes of a device's registers. What no device answers reads as ones.
    fn read(&mut self, device: usize, offset: u64, width: usize) -> u64;
    /// Writes 1, 2, 4 or 8 bytes of a device's registers.
    fn write(&mut self, device: usize, offset: u64, width: usize, value: u64);
    /// Writes `bytes` to the guest's memory from `address` on.
    fn store(&mut self, address: u64, bytes: &[u8]);
    /// Reads the guest's memory from `address` on.
    fn load(&mut self, address: u64, bytes: &mut [u8]);
    /// Lets the devices work. `attempt` counts the calls of one wait; `false` ends it.
    fn wait(&mut self, attempt: u32) -> bool;
}

/// Devices that one runner may have.
pub const MAX_DEVICES: usize = 8;
/// Queues of one device that are driven.
pub const MAX_QUEUES: usize = 16;
/// Bytes of memory for rings and buffers.
pub const ARENA_SIZE: u64 = 2 << 20;

/// Device numbers (virtio 1.3, 5).
pub(crate) const NET: u32 = 1;
pub(crate) const BLOCK: u32 = 2;
pub(crate) const CONSOLE: u32 = 3;
pub(crate) const RNG: u32 = 4;
pub(crate) const VSOCK: u32 = 19;

/// What a device with this number is, if the table has a good request for it.
#[must_use]
pub fn device_name(id: u32) -> Option<&'static str> {
    Some(match id {
        NET => "network",
        BLOCK => "block",
        CONSOLE => "console",
        RNG => "entropy",
        VSOCK => "socket",
        _ => return None,
    })
}

/// Where a row applies.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scope {
    EachDevice,
    EachQueue,
    /// Each queue whose chains the device takes without anything to send to the guest.
    ServedQueue,
    /// The served queue of a device with this number.
    Only(u32),
    /// This queue of a device with this number.
    Queue(u32, u16),
}

type Action = fn(&mut Driver<'_>, u16, u64) -> Result<(), Fault>;

/// One row of the table: each value on each device or queue in its scope.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) clause: &'static str,
    pub(crate) what: &'static str,
    pub(crate) scope: Scope,
    pub(crate) values: &'static [u64],
    pub(crate) action: Action,
}

/// One case, for messages.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Clause of virtio 1.3.
    pub clause: &'static str,
    /// What the guest does.
    pub what: &'static str,
    /// Number of the device in the machine.
    pub device: usize,
    /// The queue; 0 for cases of the whole device.
    pub queue: u16,
    /// The value, whose meaning depends on the row.
    pub value: u64,
}

/// How a case ended.
#[derive(Clone, Copy, Debug)]
pub enum Verdict {
    /// The device did what the specification asks for, and both good requests were served.
    Passed,
    /// The device did something else.
    Failed(Fault),
    /// A good request was not served afterwards.
    Wedged(Fault),
}

/// Runs one of `every` cases, from the first on, and passes its verdict on, until `report` breaks off. A
/// device that does not serve a good request before the first case is an error.
///
/// # Errors
/// The number of the device, and what it did.
pub fn run(
    machine: &mut dyn Machine,
    every: usize,
    report: &mut dyn FnMut(&Case, Verdict) -> ControlFlow<()>,
) -> Result<(), (usize, Fault)> {
    let mut driver = Driver::new(machine);
    let mut number = 0;
    for device in 0..driver.devices() {
        driver.select(device);
        driver.start().and_then(|()| driver.good_request()).map_err(|fault| (device, fault))?;
    }
    for row in transport_rows::ROWS.iter().chain(ring_rows::ROWS).chain(request_rows::ROWS).chain(command_rows::ROWS) {
        for device in 0..driver.devices() {
            driver.select(device);
            let (queues, served) = (driver.queues(), driver.served_queue());
            let (first, last) = match row.scope {
                Scope::EachDevice => (0, 0),
                Scope::EachQueue => (0, queues - 1),
                Scope::ServedQueue => (served, served),
                Scope::Only(id) if id == driver.id() => (served, served),
                Scope::Queue(id, queue) if id == driver.id() => (queue, queue),
                Scope::Only(_) | Scope::Queue(..) => continue,
            };
            for queue in first..=last {
                for &value in row.values {
                    number += 1;
                    if (number - 1) % every.max(1) != 0 {
                        continue;
                    }
                    let case = Case { clause: row.clause, what: row.what, device, queue, value };
                    if report(&case, judge(&mut driver, row, &case)).is_break() {
                        return Ok(());
                    }
                }
            }
        }
    }
    Ok(())
}

fn judge(driver: &mut Driver<'_>, row: &Row, case: &Case) -> Verdict {
    driver.select(case.device);
    let outcome = driver.start().and_then(|()| (row.action)(driver, case.queue, case.value));
    driver.select(case.device);
    if let Err(fault) = driver.start().and_then(|()| driver.good_request()) {
        return Verdict::Wedged(fault);
    }
    driver.select((case.device + 1) % driver.devices());
    if let Err(fault) = driver.good_request() {
        return Verdict::Wedged(fault);
    }
    match outcome {
        Ok(()) => Verdict::Passed,
        Err(fault) => Verdict::Failed(fault),
    }
}
