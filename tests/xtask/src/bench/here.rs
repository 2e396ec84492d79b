// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask bench here`: time and memory of the release build with the test images on this machine's KVM, as medians next
//! to the goals. Also written to `target/bench.json`.

use super::product::Product;
use super::report::{Goal, Measure, Report};
use super::{boot, boot_stages, comparison, conversion, memory, verbs};
use crate::repository::root;
use anyhow::Result;
use std::path::Path;
use std::process::ExitCode;

/// Goals, in microseconds, bytes and bytes per second.
const FIRST_BYTE_EMULATED: u64 = 6_000_000;
const FIRST_BYTE_NATIVE: u64 = 1_000_000;
const IMAGE_READY: u64 = 5_000;
const OWN_MEMORY: u64 = 5 << 20;
const CONVERSION_RATE: u64 = 150_000_000;

/// Measures everything `runs` times; first beside the build `old`, if there is one.
pub(crate) fn run(runs: usize, old: Option<&Path>) -> Result<ExitCode> {
    let product = Product::find()?;
    if let Some(old) = old {
        comparison::run(&product, old, runs)?;
    }
    let first_byte = if product.emulated() { FIRST_BYTE_EMULATED } else { FIRST_BYTE_NATIVE };
    let mut report = Report::new(&product, runs);

    eprintln!("boot: {runs} runs");
    let boots = boot::measure(&product, runs)?;
    let first_bytes = boots.iter().map(|boot| boot.first_byte_us).collect();
    report.add(Measure::time("process start to the workload's first byte", first_bytes, Goal::AtMost(first_byte)));
    let cpu = boots.iter().map(|boot| boot.cpu_us).collect();
    report.add(Measure::time("CPU time of that process, start to end", cpu, Goal::None));
    for (stage, samples) in boot::stages(&boots) {
        let goal = if stage.starts_with("image") { Goal::AtMost(IMAGE_READY) } else { Goal::None };
        report.add(Measure::time(&format!("boot stage, since process start: {stage}"), samples, goal));
    }

    boot_stages::write(&product, &boots, &root().join("target"))?;

    eprintln!("memory: {runs} runs");
    let memory = memory::measure(&product, runs)?;
    let own = memory.iter().map(|sample| sample.own_bytes).collect();
    report.add(Measure::size("coracle's own resident memory, without guest pages", own, Goal::AtMost(OWN_MEMORY)));
    let guest = memory.iter().map(|sample| sample.guest_bytes).collect();
    report.add(Measure::size("resident guest memory of 128 MiB, idle", guest, Goal::None));

    eprintln!("conversion: {runs} runs");
    let conversion = conversion::measure(&product, runs)?;
    let layers = conversion.layer_bytes;
    let rates = conversion.times_us.iter().map(|time| layers * 1_000_000 / (*time).max(1)).collect();
    report.add(Measure::rate(
        "python image, uncompressed layer bytes to root disk",
        rates,
        Goal::AtLeast(CONVERSION_RATE),
    ));
    report.add(Measure::time("python image, conversion", conversion.times_us, Goal::None));

    verbs::list(&product, runs, &mut report)?;

    println!("{}", report.markdown());
    boot_stages::draw()?;
    let path = root().join("target/bench.json");
    std::fs::write(&path, report.json())?;
    eprintln!("also written to {}", path.display());
    Ok(ExitCode::SUCCESS)
}
