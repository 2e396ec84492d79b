// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Images to measure with: 1 GB in 30,000 files like those of a distribution, the same bytes on every machine. Made once, and kept in
//! the user's cache.

use crate::user_cache;
use anyhow::{Context, Result};
use coracle_tests::sha256;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A directory of the root, which is a layer, and its share of the largest one.
const LAYERS: [(&str, f64); 5] = [("usr", 1.0), ("opt", 0.06), ("srv", 0.03), ("home", 0.02), ("var", 0.11)];
/// Files of the largest layer: how many, and their sizes.
const FILES: [(usize, std::ops::Range<usize>); 3] =
    [(24_000, 200..16_000), (3_000, 16_000..200_000), (40, 4_000_000..16_000_000)];
const FILES_PER_DIRECTORY: usize = 60;
const POOL_SIZE: usize = 16 << 20;
/// The longest part of a file that repeats another one.
const MAX_SLICE: usize = 48 << 10;

/// Layouts and archives in one directory.
pub(super) struct Sample(PathBuf);

impl Sample {
    /// Finds the images in the cache, or makes them. Their key is the text of this file.
    pub(super) fn find_or_make() -> Result<Sample> {
        let key = &sha256(include_bytes!("sample.rs"))[..16];
        let directory = user_cache::find_or_make("bench-images", key, |directory| {
            eprintln!("making images of 1 GB in {}", directory.display());
            make(directory)
        })?;
        Ok(Sample(directory))
    }

    /// Layers in gzip, the first of 90 %.
    pub(super) fn first(&self) -> PathBuf {
        self.0.join("first")
    }

    /// The first layer of [`Self::first`], and another one.
    pub(super) fn second(&self) -> PathBuf {
        self.0.join("second")
    }

    /// As [`Self::first`], in zstd.
    pub(super) fn zstd(&self) -> PathBuf {
        self.0.join("zstd")
    }

    /// All layers of [`Self::first`] as one archive.
    pub(super) fn archive(&self) -> PathBuf {
        self.0.join("first.tar")
    }
}

fn make(work: &Path) -> Result<()> {
    let root = work.join("root");
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let pools =
        [text(&mut random), code(&mut random), (0..POOL_SIZE / 8).flat_map(|_| random.next().to_le_bytes()).collect()];
    let mut layers = Vec::new();
    for (name, share) in LAYERS {
        write_files(&root.join(name), share, &pools, &mut random)?;
        layers.push(work.join(format!("{name}.tar")));
        archive(&root, &[name], &layers[layers.len() - 1])?;
    }
    let [usr, opt, srv, home, _] = LAYERS.map(|(name, _)| name);
    archive(&root, &[usr, opt, srv, home], &work.join("first.tar"))?;
    fs::remove_dir_all(&root)?;
    let gzip = |layer: &Path| packed(layer, "gzip", &["gzip", "-n", "-6", "-c"]);
    let gzipped = layers.iter().map(|layer| gzip(layer)).collect::<Result<Vec<_>>>()?;
    layout(&work.join("first"), &gzipped[..4])?;
    layout(&work.join("second"), &[gzipped[0].clone(), gzipped[4].clone()])?;
    let zstd = |layer: &PathBuf| packed(layer, "zstd", &["zstd", "-q", "-3", "-c"]);
    layout(&work.join("zstd"), &layers[..4].iter().map(zstd).collect::<Result<Vec<_>>>()?)?;
    for name in LAYERS.map(|(name, _)| name) {
        for suffix in ["tar", "tar.gzip", "tar.zstd"] {
            // Not every layer is in every image.
            let _ = fs::remove_file(work.join(format!("{name}.{suffix}")));
        }
    }
    Ok(())
}

/// Writes `share` of the files.
fn write_files(directory: &Path, share: f64, pools: &[Vec<u8>; 3], random: &mut Random) -> Result<()> {
    let mut number = 0;
    for (count, sizes) in FILES {
        for _ in 0..(count as f64 * share).ceil() as usize {
            let parent = directory.join(format!("lib/{}", number / FILES_PER_DIRECTORY));
            fs::create_dir_all(&parent)?;
            let mut left = sizes.start + random.below(sizes.end - sizes.start);
            // Half of the files are text, a third programs; the others do not compress.
            let pool = &pools[[0, 0, 0, 1, 1, 2][random.below(6)]];
            let mut file = BufWriter::new(File::create(parent.join(number.to_string()))?);
            while left > 0 {
                let length = left.min(1 + random.below(MAX_SLICE));
                let start = random.below(pool.len() - length);
                file.write_all(&pool[start..start + length])?;
                left -= length;
            }
            file.flush()?;
            if number % 20 == 0 {
                symlink(number.to_string(), parent.join(format!("link-{number}")))?;
            }
            number += 1;
        }
    }
    Ok(())
}

/// Words, the common ones more often.
fn text(random: &mut Random) -> Vec<u8> {
    let word = |random: &mut Random| -> Vec<u8> {
        (0..2 + random.below(9))
            .map(|_| b"etaoinshrdlucmfwypvbgkqjxz"[random.below(26).min(random.below(26))])
            .collect()
    };
    let words: Vec<Vec<u8>> = (0..4096).map(|_| word(random)).collect();
    let mut text = Vec::with_capacity(POOL_SIZE + 16);
    while text.len() < POOL_SIZE {
        let rank = (0..3).map(|_| random.below(words.len())).min().expect("there are three");
        text.extend_from_slice(&words[rank]);
        text.push(if random.below(12) == 0 { b'\n' } else { b' ' });
    }
    text
}

/// Instructions of a few forms, with operands.
fn code(random: &mut Random) -> Vec<u8> {
    let forms: Vec<[u8; 8]> = (0..2048).map(|_| random.next().to_le_bytes()).collect();
    let mut code = Vec::with_capacity(POOL_SIZE + 16);
    while code.len() < POOL_SIZE {
        code.extend_from_slice(&forms[random.below(forms.len()).min(random.below(forms.len()))]);
        code.extend_from_slice(&[random.below(64) as u8, 0]);
    }
    code
}

/// Packs directories of `root`, the same bytes each time.
fn archive(root: &Path, names: &[&str], into: &Path) -> Result<()> {
    let options =
        ["--sort=name", "--mtime=@1700000000", "--owner=0", "--group=0", "--numeric-owner", "--mode=u=rwX,go=rX"];
    let mut tar = super::silent("tar");
    tar.args(options).args(["--format=ustar", "-C"]).arg(root).arg("-cf").arg(into).args(names);
    super::run_quietly(&mut tar)
}

/// A layer as the layouts have it.
#[derive(Clone)]
struct Layer {
    file: PathBuf,
    diff_id: String,
    compression: &'static str,
}

fn packed(layer: &Path, compression: &'static str, command: &[&str]) -> Result<Layer> {
    let file = layer.with_extension(format!("tar.{compression}"));
    let mut compress = super::silent(command[0]);
    super::run_quietly(compress.args(&command[1..]).arg(layer).stdout(File::create(&file)?))?;
    Ok(Layer { file, diff_id: sha256_of(layer)?, compression })
}

fn layout(directory: &Path, layers: &[Layer]) -> Result<()> {
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let mut descriptors = Vec::new();
    for Layer { file, compression, .. } in layers {
        let (digest, size) = (sha256_of(file)?, file.metadata()?.len());
        // Layers are in several images.
        fs::hard_link(file, blobs.join(&digest))?;
        let media_type = format!("application/vnd.oci.image.layer.v1.tar+{compression}");
        descriptors.push(json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size }));
    }
    let document = |media_type: &str, document: &Value| -> Result<Value> {
        let text = document.to_string();
        let digest = sha256(text.as_bytes());
        fs::write(blobs.join(&digest), &text)?;
        let media_type = format!("application/vnd.oci.image.{media_type}.v1+json");
        Ok(json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": text.len() }))
    };
    let diff_ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", layer.diff_id)).collect();
    let config = document(
        "config",
        &json!({
            "architecture": "amd64",
            "os": "linux",
            "config": { "Cmd": ["true"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        }),
    )?;
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": descriptors });
    let mut manifest = document("manifest", &manifest)?;
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "latest" });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    Ok(fs::write(directory.join("index.json"), index.to_string())?)
}

/// Returns the digest in hex digits.
fn sha256_of(file: &Path) -> Result<String> {
    let output = Command::new("sha256sum").arg("-b").arg(file).output().context("sha256sum")?;
    let text = String::from_utf8(output.stdout)?;
    text.split(' ').next().filter(|digest| digest.len() == 64).map(str::to_owned).context("sha256sum prints no digest")
}

/// A sequence that is the same each time (xorshift64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 11) as usize % end
    }
}
