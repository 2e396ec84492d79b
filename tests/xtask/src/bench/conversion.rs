// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Conversion of the python image to a root disk, each time into an empty cache.

use super::product::Product;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

pub(crate) struct Conversion {
    /// The uncompressed size of all layers.
    pub(crate) layer_bytes: u64,
    /// From the boot stage `parsed` to `image_ready`.
    pub(crate) times_us: Vec<u64>,
}

pub(crate) fn measure(product: &Product, runs: usize) -> Result<Conversion> {
    let layer_bytes = layer_bytes(&product.image("python"))?;
    let times_us = (0..runs).map(|_| convert(product)).collect::<Result<_>>()?;
    Ok(Conversion { layer_bytes, times_us })
}

fn convert(product: &Product) -> Result<u64> {
    let cache = tempfile::tempdir()?;
    let options = ["--entrypoint", "/bin/sh", "--scratch", "tmpfs"];
    let run = product.start_with_cache(cache.path(), &options, "python", &["-c", "exit 0"])?;
    let result = run.finish()?;
    let stage = |part: &str| {
        let stages = result["boot"].as_object().context("the result has no `boot`")?;
        let found = stages.iter().find(|(name, _)| name.contains(part)).and_then(|(_, time)| time.as_u64());
        found.with_context(|| format!("no boot stage has `{part}` in its name"))
    };
    Ok(stage("image")?.saturating_sub(stage("parsed")?))
}

/// Reads the index and its first manifest, and counts the bytes that gzip returns.
fn layer_bytes(layout: &Path) -> Result<u64> {
    let index = read_json(&layout.join("index.json"))?;
    let manifest = read_json(&blob(layout, &index["manifests"][0])?)?;
    let layers = manifest["layers"].as_array().context("the manifest has no layers")?;
    let mut sum = 0;
    for layer in layers {
        let path = blob(layout, layer)?;
        let mut gzip = Command::new("gzip").arg("-dc").stdin(File::open(&path)?).stdout(Stdio::piped()).spawn()?;
        let mut output = BufReader::new(gzip.stdout.take().context("gzip's output")?);
        sum += std::io::copy(&mut output.by_ref(), &mut std::io::sink())?;
        ensure!(gzip.wait()?.success(), "gzip cannot read {}", path.display());
    }
    Ok(sum)
}

fn blob(layout: &Path, descriptor: &Value) -> Result<std::path::PathBuf> {
    let digest = descriptor["digest"].as_str().context("a descriptor without a digest")?;
    Ok(layout.join("blobs").join(digest.replace(':', "/")))
}

fn read_json(path: &Path) -> Result<Value> {
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    serde_json::from_slice(&bytes).with_context(|| path.display().to_string())
}
