// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Facilities of the operating system besides KVM, one each file: memory, disk space, terminal, signals, processes, installed files.

pub(crate) mod allocator;
pub(crate) mod atomic_write;
pub(crate) mod background_process;
pub(crate) mod bounded_read;
pub(crate) mod daemonize;
pub(crate) mod descriptor;
pub(crate) mod descriptor_limit;
pub(crate) mod directories;
pub(crate) mod ext4;
pub(crate) mod file_digest;
pub(crate) mod file_lock;
pub(crate) mod file_size_limit;
pub(crate) mod forbidden_call;
pub(crate) mod helper_process;
pub(crate) mod hex;
pub(crate) mod inherited_sockets;
pub(crate) mod installed;
pub(crate) mod interruptible;
pub(crate) mod listening_socket;
pub(crate) mod lost_memory;
pub(crate) mod memory;
pub(crate) mod message_file;
pub(crate) mod netlink;
pub(crate) mod packet_socket;
pub(crate) mod panics;
pub(crate) mod partial_directory;
pub(crate) mod process;
pub(crate) mod random;
pub(crate) mod resident;
pub(crate) mod scratch;
pub(crate) mod service_manager;
pub(crate) mod signals;
pub(crate) mod sparse_file;
pub(crate) mod stack_limit;
pub(crate) mod system_error;
pub(crate) mod terminal;
#[cfg(test)]
pub(crate) mod test_namespace;
pub(crate) mod thread_directory;
pub(crate) mod tmpfile;
pub(crate) mod watch;
