// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The binary `coracle`: one container image as one microVM in one process.

use std::process::ExitCode;
use vmm::Stages;

fn main() -> ExitCode {
    // The clock of the boot stages starts with the first line.
    let stages = Stages::start();
    ExitCode::from(vmm::main(std::env::args_os(), stages))
}
