// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Converts an image and prints the throughput: `cargo run --release -p oci-image --example convert
//! -- oci:DIR [erofs|squashfs [CACHE]]`. Without a cache directory a temporary one is used.

use oci_image::{ImageReference, Platform, Prepare, RootFormat, prepare};
use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let reference = ImageReference::parse(&arguments.next().ok_or("usage: convert IMAGE [FORMAT [CACHE]]")?)?;
    let format = match arguments.next().as_deref() {
        None | Some("erofs") => RootFormat::Erofs,
        Some("squashfs") => RootFormat::Squashfs,
        Some(other) => return Err(format!("unknown format {other}").into()),
    };
    let temporary = std::env::temp_dir().join(format!("oci-image-convert-{}", std::process::id()));
    let kept = arguments.next().map(PathBuf::from);
    let cache = kept.as_ref().unwrap_or(&temporary);
    let request = Prepare { reference: &reference, cache, platform: Platform::default(), format, progress: None };
    let result = ["first", "second"].into_iter().try_for_each(|time| -> Result<(), Box<dyn Error>> {
        let start = Instant::now();
        let image = prepare(&request).inspect_err(|error| {
            let mut cause = Some(error as &dyn Error);
            while let Some(error) = cause {
                eprintln!("{error}");
                cause = error.source();
            }
        })?;
        let elapsed = start.elapsed();
        let megabytes = image.layer_bytes as f64 / 1e6;
        println!("{time} start: {:.2} ms, cached: {}", elapsed.as_secs_f64() * 1e3, image.cached);
        if !image.cached {
            println!("  {megabytes:.1} MB of layers at {:.0} MB/s", megabytes / elapsed.as_secs_f64());
            println!("  root disk {} {} bytes", image.root_disk_digest, image.root_disk.bytes());
        }
        Ok(())
    });
    if kept.is_none() {
        std::fs::remove_dir_all(&temporary)?;
    }
    result
}
