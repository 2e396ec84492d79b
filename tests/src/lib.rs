// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Harness of the end-to-end tests: starts the real binary, like a user, in a place of its own, and looks at what a
//! user can see of it: streams, exit status, result document, files and processes left behind.
//!
//! Nothing here knows the crates under test. A test belongs to a [`Level`] and may name [`Need`]s; one that this machine
//! cannot run is reported as ignored with the reason, never silently passed.

mod artifacts;
mod capture;
mod case;
mod elf;
mod finished;
pub mod frames;
mod guest_program;
mod idle;
mod invocation;
mod layout;
mod pty;
mod running;
mod test_dir;
mod world;

pub use artifacts::{
    coracle, foreign_kernel, foreign_kernels, image, images, kernel, root_disk, scratch_folder, workspace,
};
pub use case::{Case, Level, Need, slowest};
pub use elf::Elf;
pub use finished::Finished;
pub use guest_program::{compile, failing_calls, file_system};
pub use invocation::{Invocation, Stdin};
pub use layout::{Layout, sha256};
pub use pty::Pty;
pub use running::Running;
pub use test_dir::TestDir;
pub use world::{Kvm, World};

#[cfg(test)]
mod harness_tests;
