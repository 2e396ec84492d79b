// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask bench here --old PATH`: another build of coracle beside this one, in turns within each round, so that both meet
//! the same load of the machine. Wall time and processor time, as medians and ratios.

use super::boot::boot;
use super::product::Product;
use super::table::Table;
use super::unit::{Unit, children_cpu_time_us, elapsed_us};
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Starts of a client in one sample: processor time is counted in hundredths of a second.
const CLIENTS: u32 = 100;

/// Prints the comparison and writes it to `target/bench-old.json`.
pub(super) fn run(new: &Product, old: &Path, rounds: usize) -> Result<()> {
    let builds = [new, &Product::other(old)?];
    let mut table = Table::new(rounds, "build", ["new", "old"]);
    for build in builds {
        // Not counted: converts the image.
        boot(build)?;
    }
    for round in 0..rounds {
        eprintln!("old and new: round {}", round + 1);
        for index in [round % 2, (round + 1) % 2] {
            let mut add = |name: &str, sample| table.add(name, Unit::Microseconds, index, sample);
            let boot = boot(builds[index])?;
            add("process start to the workload's first byte", boot.first_byte_us);
            add("process start to process end", boot.end_us);
            add("CPU time, start to end", boot.cpu_us);
            for (stage, time) in boot.stages() {
                add(&format!("boot stage, since process start: {stage}"), time);
            }
            let (wall, cpu) = client(builds[index].binary())?;
            add("`coracle --version`, start to end", wall);
            add("the same, CPU time", cpu);
        }
    }
    println!("{}", table.markdown());
    let path = crate::repository::root().join("target/bench-old.json");
    std::fs::write(&path, table.json()).with_context(|| path.display().to_string())?;
    eprintln!("also written to {}", path.display());
    Ok(())
}

/// Wall and processor time of one start, in microseconds.
fn client(binary: &Path) -> Result<(u64, u64)> {
    let cpu_before = children_cpu_time_us()?;
    let start = Instant::now();
    for _ in 0..CLIENTS {
        let status = Command::new(binary).arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).status()?;
        ensure!(status.success(), "{} --version: {status}", binary.display());
    }
    let wall = elapsed_us(start)?;
    Ok((wall / u64::from(CLIENTS), (children_cpu_time_us()? - cpu_before) / u64::from(CLIENTS)))
}
