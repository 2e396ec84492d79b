// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask nested`: an outer Linux in QEMU without acceleration, whose emulated SVM gives it a `/dev/kvm` with the
//! semantics of ordinary KVM, wherever this runs. The product and its tests run in there.

mod layers;
mod options;
mod outer;
mod ports;
mod product;

pub(crate) use options::{Options, XTASK};

use anyhow::Result;
use std::io::{self, Write};
use std::process::ExitCode;

/// What `cargo xtask nested` does: the command in the outer Linux, or the end-to-end tests.
pub(crate) fn run(words: &[String]) -> Result<ExitCode> {
    let options = Options::parse(words)?;
    let status = start(&options, &mut |bytes| {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        stdout.flush()
    })?;
    Ok(ExitCode::from(status))
}

/// Runs the command of `options` in the outer Linux to its end and returns its exit status. `stdout` takes what it writes;
/// its standard error is this process's.
pub(crate) fn start(options: &Options, stdout: &mut outer::Sink<'_>) -> Result<u8> {
    let product = product::Product::find(options.wants_foreign_kernels())?;
    let layers = layers::Layers::make(&product, options)?;
    outer::run(options, &layers, stdout)
}
