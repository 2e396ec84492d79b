// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What passes between host and guest, [`run_spec`] and [`protocol`], and those decisions of PID 1 that need no system
//! call and can therefore be tested on any machine. PID 1 itself is `main.rs`. Needs `alloc` only.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod environment;
pub mod etc_files;
pub mod exec;
pub mod executable;
pub mod health;
pub mod ipv4;
pub mod line_ends;
pub mod memory_events;
pub mod module_list;
pub mod notification;
pub mod protocol;
pub mod run_spec;
pub mod tmpfs_options;
pub mod user;
