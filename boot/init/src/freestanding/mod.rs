// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a C library would have brought: the entry point, memory functions, a heap, the panic handler, the standard
//! descriptors, and the few system calls that rustix does not wrap. All of the unsafe code of PID 1 but its network
//! ioctls is in this folder.

mod entry;
mod heap;
mod memory;
mod panic;
mod standard;
pub(crate) mod system_call;

pub(crate) use entry::environment;
pub(crate) use standard::{Line, occupy, replace_standard_descriptors, stderr, stdin};
