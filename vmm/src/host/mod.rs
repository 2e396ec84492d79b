// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the host gives to a machine besides KVM: memory, disk space, a terminal, signals, files that came with coracle.

pub(crate) mod atomic_write;
pub(crate) mod daemonize;
pub(crate) mod descriptor;
pub(crate) mod directories;
pub(crate) mod file_digest;
pub(crate) mod inherited_sockets;
pub(crate) mod installed;
pub(crate) mod interruptible;
pub(crate) mod memory;
pub(crate) mod mke2fs;
pub(crate) mod panics;
pub(crate) mod process;
pub(crate) mod random;
pub(crate) mod resident;
pub(crate) mod scratch;
pub(crate) mod service_manager;
pub(crate) mod signals;
mod template;
pub(crate) mod terminal;
mod tmpfile;
pub(crate) mod watch;
