// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Start of the process to the workload's first byte: `busybox echo x`, 128 MiB, 1 vCPU, image converted before.

use super::product::Product;
use super::unit::elapsed_us;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::io::Read;
use std::time::Instant;

/// One boot.
pub(crate) struct Boot {
    /// As seen from outside.
    pub(crate) first_byte_us: u64,
    /// As the result document says: microseconds since the process's start.
    stages_us: BTreeMap<String, u64>,
}

/// Boots `runs` times, after one that is not counted and converts the image.
pub(crate) fn measure(product: &Product, runs: usize) -> Result<Vec<Boot>> {
    boot(product)?;
    (0..runs).map(|_| boot(product)).collect()
}

fn boot(product: &Product) -> Result<Boot> {
    let start = Instant::now();
    let mut run = product.start(&["--memory", "128m", "--cpus", "1"], "busybox", &["echo", "x"])?;
    let mut first = [0];
    run.child.stdout.as_mut().context("stdout")?.read_exact(&mut first).context("the workload wrote nothing")?;
    let first_byte_us = elapsed_us(start)?;
    let result = run.finish()?;
    let stages = result["boot"].as_object().context("the result has no `boot`")?;
    let stages_us = stages.iter().filter_map(|(name, value)| Some((name.clone(), value.as_u64()?))).collect();
    Ok(Boot { first_byte_us, stages_us })
}

/// Samples of each stage, in the order in which they pass.
pub(crate) fn stages(boots: &[Boot]) -> Vec<(String, Vec<u64>)> {
    let Some(first) = boots.first() else { return Vec::new() };
    let mut names: Vec<(&String, &u64)> = first.stages_us.iter().collect();
    names.sort_by_key(|(_, time)| **time);
    let samples = |name| boots.iter().filter_map(|boot| boot.stages_us.get(name).copied()).collect();
    names.into_iter().map(|(name, _)| (name.clone(), samples(name))).collect()
}
