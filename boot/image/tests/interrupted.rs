// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Conversions that are killed, or run out of space, at a hundred different bytes. Each runs in a
//! process of its own: this test binary under a file size limit, at which the kernel kills the
//! writer, or fails its write if the signal is ignored.

use oci_image::{ImageReference, Platform, Prepare, PreparedImage, RootFormat, prepare};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus};

const POINTS: u64 = 100;
/// Size of the image's files; the limits are spread over it.
const BYTES: usize = 400_000;
const SIGXFSZ: i32 = 25;
/// Exit status of a conversion that failed with a host error.
const FAILED: i32 = 33;

fn blob(layout: &Path, bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    fs::write(layout.join("blobs/sha256").join(&hex), bytes).unwrap();
    format!(r#"{{"digest":"sha256:{hex}","size":{}}}"#, bytes.len())
}

/// A layout with one image of a few files.
fn layout() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir_all(directory.path().join("blobs/sha256")).unwrap();
    let mut layer = tar::Builder::new(Vec::new());
    for number in 0..20usize {
        let data = vec![number as u8; BYTES / 20];
        let mut header = tar::Header::new_ustar();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        layer.append_data(&mut header, format!("file{number}"), data.as_slice()).unwrap();
    }
    let layer = layer.into_inner().unwrap();
    let layer_blob = blob(directory.path(), &layer);
    let diff_id = layer_blob.split('"').nth(3).unwrap();
    let config = blob(directory.path(), format!(r#"{{"rootfs":{{"diff_ids":["{diff_id}"]}}}}"#).as_bytes());
    let manifest = blob(directory.path(), format!(r#"{{"config":{config},"layers":[{layer_blob}]}}"#).as_bytes());
    fs::write(directory.path().join("index.json"), format!(r#"{{"manifests":[{manifest}]}}"#)).unwrap();
    directory
}

fn convert(layout: &Path, cache: &Path) -> Result<PreparedImage, oci_image::Error> {
    let reference = ImageReference::OciLayout { path: layout.into(), tag: None };
    prepare(&Prepare {
        reference: &reference,
        cache,
        platform: Platform::default(),
        format: RootFormat::default(),
        progress: None,
    })
}

/// Runs a conversion with a file size limit of `limit` units of 512 bytes.
fn limited(layout: &Path, cache: &Path, limit: u64, before: &str) -> ExitStatus {
    let script =
        format!("ulimit -c 0; ulimit -f {limit}; {before} exec \"$0\" --quiet --exact --ignored one_conversion");
    let output = Command::new("sh")
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .env("LAYOUT", layout)
        .env("CACHE", cache)
        .output()
        .unwrap();
    output.status
}

#[test]
#[ignore = "run by the other tests, as a process of its own"]
fn one_conversion() {
    let path = |name| std::path::PathBuf::from(std::env::var_os(name).expect("set by the other tests"));
    if let Err(error) = convert(&path("LAYOUT"), &path("CACHE")) {
        assert!(error.is_host(), "running out of space is a host error: {error}");
        std::process::exit(FAILED);
    }
}

/// Number of unfinished directories in the cache.
fn leftovers(cache: &Path) -> usize {
    let unfinished = |directory: &str| {
        let Ok(entries) = fs::read_dir(cache.join(directory)) else { return 0 };
        entries.filter(|entry| entry.as_ref().unwrap().file_name().as_encoded_bytes().starts_with(b".")).count()
    };
    unfinished("images/v3") + unfinished("layers/v1")
}

#[test]
fn kill_at_any_byte_leaves_nothing_in_the_way() {
    let layout = layout();
    let (mut killed, mut finished) = (0, 0);
    let complete = tempfile::tempdir().unwrap();
    let expected = convert(layout.path(), complete.path()).unwrap().root_disk_digest;
    let cache = tempfile::tempdir().unwrap();
    for point in 0..POINTS {
        let limit = point * (BYTES as u64 / 512 + 40) / POINTS;
        let status = limited(layout.path(), cache.path(), limit, "");
        match status.signal() {
            Some(SIGXFSZ) => killed += 1,
            None if status.success() => finished += 1,
            _ => panic!("limit {limit}: {status}"),
        }
        let image = convert(layout.path(), cache.path()).unwrap();
        assert_eq!((image.cached, image.root_disk_digest.as_str()), (status.success(), expected.as_str()));
        assert_eq!(leftovers(cache.path()), 0);
        fs::remove_dir_all(cache.path().join("images")).unwrap();
        fs::remove_dir_all(cache.path().join("layers")).unwrap();
    }
    assert!(killed > POINTS / 2 && finished > 0, "{killed} killed, {finished} finished");
}

#[test]
fn failed_write_at_any_byte_leaves_nothing() {
    let layout = layout();
    let (mut failed, mut finished) = (0, 0);
    for point in 0..POINTS {
        let cache = tempfile::tempdir().unwrap();
        let limit = point * (BYTES as u64 / 512 + 40) / POINTS;
        let status = limited(layout.path(), cache.path(), limit, "trap '' XFSZ;");
        match status.code() {
            Some(0) => finished += 1,
            Some(FAILED) => failed += 1,
            _ => panic!("limit {limit}: {status}"),
        }
        assert_eq!(leftovers(cache.path()), 0, "limit {limit}");
        let image = convert(layout.path(), cache.path()).unwrap();
        assert_eq!(image.cached, status.success());
    }
    assert!(failed > POINTS / 2 && finished > 0, "{failed} failed, {finished} finished");
}
