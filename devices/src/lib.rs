// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the guest can access: the bus, the virtio devices behind their MMIO transport, and a few
//! legacy ports.
//!
//! The crate does not use KVM. Interrupts (irqfd) and queue notifications (ioeventfd) are event
//! descriptors that the caller passes in, and a write to the bus *returns* what the machine has to
//! do.
//!
//! A hostile guest can reach everything here. Its mistakes are values (a status byte, a zero
//! length, needs-reset), never a panic, an unbounded loop or allocation, or a flood of log lines.
#![warn(missing_docs)]

pub mod bus;
pub mod commands;
pub mod event_loop;
pub mod guest_log;
pub mod interrupt;
pub mod legacy;
pub mod log_sink;
pub mod planted;
pub mod rate_limit;
mod slot;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod token_bucket;
pub mod turn;
pub mod virtio;

/// The guest's memory. Queues hold a clone; it stays mapped as long as one of them exists.
pub type GuestMemory = vm_memory::GuestMemoryMmap<()>;
