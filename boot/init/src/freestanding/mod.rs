// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The parts of a C library that PID 1 needs: the entry point, memory functions, a heap, the panic
//! handler, the standard descriptors, and the few system calls that rustix does not wrap. All
//! unsafe code of PID 1 but its network ioctls is in this directory.

mod entry;
mod heap;
mod memory;
mod panic;
mod standard;
pub(crate) mod system_call;

pub(crate) use entry::environment;
pub(crate) use panic::reset;
pub(crate) use standard::{Line, open_missing_descriptors, replace_standard_descriptors, stderr, stdin, stdout};
