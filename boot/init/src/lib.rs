// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What passes between host and guest: the [`RunSpec`](run_spec::RunSpec) that PID 1 asks for, and the frames of the
//! control port. This half is shared by the host (`vmm`) and the guest (`main.rs`); it needs `alloc` only.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod protocol;
pub mod run_spec;
