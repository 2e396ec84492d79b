// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Harness of the end-to-end tests. It starts the real binary, like a user, in a directory of its own, and examines what a
//! user can see: streams, exit status, result document, files and processes left behind.
//!
//! It uses none of the crates under test. A test belongs to a [`Level`] and may name [`Need`]s. One that this host cannot run
//! is reported as ignored, with the reason.

mod artifacts;
pub mod campaign;
mod capture;
mod case;
pub mod drill;
mod elf;
mod finished;
pub mod frames;
mod guest_program;
mod host;
pub mod hostile;
mod idle;
mod invocation;
mod iso_image;
mod layout;
mod network_namespace;
mod pty;
mod running;
mod test_dir;
mod unprivileged;

pub use artifacts::{
    FIRECRACKER_KERNEL, coracle, foreign_kernel, foreign_kernels, image, images, kernel, root_disk, scratch_directory,
    workspace,
};
pub use case::{Case, Level, Need, slowest};
pub use elf::Elf;
pub use finished::Finished;
pub use guest_program::{
    compile, failing_calls, failing_use, file_system, forbidden_call, hanging_thread, remote_calls, without_call,
};
pub use host::{Host, Kvm, Selection};
pub use idle::{shared_machine, stop_shared_machine};
pub use invocation::{Invocation, Stdin};
pub use iso_image::iso_image;
pub use layout::{Layout, blob, document, sha256};
pub use network_namespace::NetworkNamespace;
pub use pty::Pty;
pub use running::Running;
pub use test_dir::TestDir;

#[cfg(test)]
mod harness_tests;
