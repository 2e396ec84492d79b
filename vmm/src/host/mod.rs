// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the host gives to a machine besides KVM: memory, disk space, a terminal, signals, files that came with coracle.

pub mod descriptor;
pub mod file_digest;
pub mod folders;
pub mod inherited_sockets;
pub mod installed;
pub mod interruptible;
pub mod memory;
pub mod mke2fs;
pub mod panics;
pub mod process;
pub mod resident;
pub mod scratch;
pub mod service_manager;
pub mod signals;
pub mod starter;
mod template;
pub mod terminal;
mod unnamed;
pub mod watch;
pub mod whole_file;
