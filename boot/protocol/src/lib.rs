// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The contract between host and guest: [`run_spec`], what PID 1 runs, and [`protocol`], the
//! messages on the control port. Needs `alloc` only.
#![no_std]
#![warn(missing_docs)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod attributes;
pub mod exec;
pub mod files;
pub mod health;
pub mod identity;
pub mod module_list;
pub mod notification;
pub mod protocol;
pub mod run_spec;
