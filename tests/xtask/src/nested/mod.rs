// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask nested`: an outer Linux in QEMU without acceleration. QEMU emulates SVM, so that the outer Linux has a native KVM
//! on every host. The build and its tests run there.

mod layers;
mod options;
mod outer;
mod ports;
mod product;

pub(crate) use options::{Options, Selection, XTASK};

use anyhow::Result;
use std::io::{self, Write};
use std::process::ExitCode;

/// Runs a command in the outer Linux, by default the end-to-end tests.
pub(crate) fn run(words: &[String]) -> Result<ExitCode> {
    let options = Options::parse(words)?;
    let status = start(&options, &mut |bytes| {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        stdout.flush()
    })?;
    Ok(ExitCode::from(status))
}

/// Builds the parts of the outer Linux that are not built from this workspace. What fails here fails in [`start`] again.
pub(crate) fn prepare() {
    let _ = product::outer_parts();
}

/// Runs the command of `options` in the outer Linux and returns its exit status. Its output goes to `stdout`, its errors to this
/// process's standard error.
pub(crate) fn start(options: &Options, stdout: &mut outer::Sink<'_>) -> Result<u8> {
    let product = product::Product::find(options.foreign_kernels())?;
    let layers = layers::Layers::make(&product, options)?;
    outer::run(options, &layers, stdout)
}
