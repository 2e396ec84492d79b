// SPDX-License-Identifier: Apache-2.0 OR MIT
//! From the start of the process to the workload's first byte and to its end: `busybox echo x`, 128 MiB, 1 vCPU, with the image
//! converted before.

use super::product::Product;
use super::unit::{children_cpu_time_us, elapsed_us};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::io::Read;
use std::time::Instant;

/// One boot, in microseconds since the process was started.
pub(crate) struct Boot {
    pub(crate) first_byte_us: u64,
    pub(crate) end_us: u64,
    /// User and system time of the process and of its children.
    pub(crate) cpu_us: u64,
    /// As the result document has them, since the process's first instruction of its own.
    stages_us: BTreeMap<String, u64>,
}

/// Boots `runs` times, after one boot that is not counted and converts the image.
pub(crate) fn measure(product: &Product, runs: usize) -> Result<Vec<Boot>> {
    boot(product)?;
    (0..runs).map(|_| boot(product)).collect()
}

pub(super) fn boot(product: &Product) -> Result<Boot> {
    let cpu_before = children_cpu_time_us()?;
    let start = Instant::now();
    let mut run = product.start(&["--memory", "128m", "--cpus", "1"], "busybox", &["echo", "x"])?;
    let mut first = [0];
    run.child.stdout.as_mut().context("stdout")?.read_exact(&mut first).context("the workload wrote nothing")?;
    let first_byte_us = elapsed_us(start)?;
    let result = run.finish()?;
    let end_us = elapsed_us(start)?;
    let cpu_us = children_cpu_time_us()? - cpu_before;
    let stages = result["boot"].as_object().context("the result has no `boot`")?;
    let stages_us = stages.iter().filter_map(|(name, value)| Some((name.clone(), value.as_u64()?))).collect();
    Ok(Boot { first_byte_us, end_us, cpu_us, stages_us })
}

impl Boot {
    /// Names and ends of the stages, in the order in which they pass.
    pub(super) fn stages(&self) -> Vec<(&str, u64)> {
        let mut stages: Vec<(&str, u64)> = self.stages_us.iter().map(|(name, time)| (name.as_str(), *time)).collect();
        stages.sort_by_key(|(_, time)| *time);
        stages
    }
}

/// Samples of each stage, in the order in which they pass.
pub(crate) fn stages(boots: &[Boot]) -> Vec<(String, Vec<u64>)> {
    let Some(first) = boots.first() else { return Vec::new() };
    let samples = |name| boots.iter().filter_map(|boot| boot.stages_us.get(name).copied()).collect();
    first.stages().into_iter().map(|(name, _)| (name.to_owned(), samples(name))).collect()
}
