// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the guest can touch: the bus, the virtio devices behind their MMIO transport, and a few legacy ports.
//!
//! The crate knows nothing of KVM. What it needs of it is handed in: an interrupt is an event descriptor (irqfd), so is
//! the kick of a queue (ioeventfd), and a write to the bus *returns* what the machine has to do about it.
//!
//! Everything here is reachable by a hostile guest. Its mistakes are values (a status byte, a zero length, needs-reset),
//! never a panic, an unbounded loop or allocation, or a flood of log lines.
#![warn(missing_docs)]

pub mod bus;
pub mod event_loop;
pub mod guest_log;
pub mod interrupt;
pub mod legacy;
pub mod log_sink;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod virtio;

/// The guest's memory. Workers hold a clone; it stays mapped as long as one of them lives.
pub type GuestMemory = vm_memory::GuestMemoryMmap<()>;
