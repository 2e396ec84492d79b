// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Decisions of PID 1 that need no system call, and so can be tested on any machine. PID 1 itself
//! is `main.rs`. Needs `alloc` only.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod copy_target;
pub mod defaults;
pub mod dhcp;
pub mod environment;
pub mod etc_files;
pub mod executable;
pub mod flat_keyed;
pub mod health;
pub mod line_ends;
pub mod listening;
pub mod program_file;
pub mod rtnetlink;
pub mod sd_notify;
pub mod tmpfs_options;
pub mod user;
