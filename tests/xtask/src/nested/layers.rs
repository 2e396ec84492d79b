// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The disks of the outer Linux: squashfs images that its init mounts over each other. Those of images and kernels are cached by
//! the names of what they hold, which are digests or versions.

use super::Options;
use super::product::Product;
use crate::repository::root;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Paths of the disks, and of what boots from them.
#[derive(Debug)]
pub(super) struct Layers {
    pub(super) emulator: PathBuf,
    pub(super) kernel: PathBuf,
    pub(super) initramfs: PathBuf,
    /// From the uppermost to the lowest.
    pub(super) disks: Vec<PathBuf>,
    /// Holds the first disk and what else the run needs. Deleted with this.
    pub(super) directory: TempDir,
}

impl Layers {
    /// Builds the disks that the cache does not have.
    pub(super) fn make(product: &Product, options: &Options) -> Result<Layers> {
        let directory = tempfile::Builder::new().prefix("coracle-nested-").tempdir()?;
        let payload = directory.path().join("payload.squashfs");
        let tree = directory.path().join("payload");
        fill_payload(&tree.join("coracle"), product, options)?;
        squash(&tree, &payload)?;
        let images = cached_layer(product, "images", &[("", &product.images)])?;
        let kernels: Vec<(&str, &Path)> = product.kernels.iter().map(|(name, path)| (*name, path.as_path())).collect();
        let mut disks = vec![payload, images];
        if !kernels.is_empty() {
            disks.push(cached_layer(product, "kernels", &kernels)?);
        }
        disks.push(product.outer.join("root.squashfs"));
        Ok(Layers {
            emulator: product.emulator.clone(),
            kernel: product.outer.join("vmlinuz"),
            initramfs: product.outer.join("initramfs"),
            disks,
            directory,
        })
    }
}

/// `/coracle` of the outer Linux: this build, its tests, and what to run.
fn fill_payload(to: &Path, product: &Product, options: &Options) -> Result<()> {
    fs::create_dir_all(to.join("bin"))?;
    fs::create_dir_all(to.join("tests"))?;
    for name in ["coracle", "vmlinux", "coracle-init", "System.map"] {
        let from = product.release.join(name);
        if from.exists() {
            fs::copy(&from, to.join("bin").join(name)).with_context(|| from.display().to_string())?;
        }
    }
    fs::copy(&product.tests, to.join("bin/end_to_end")).with_context(|| product.tests.display().to_string())?;
    fs::copy(std::env::current_exe()?, to.join("bin/xtask"))?;
    fs::copy(coracle_tests::hostile::kernel(), to.join("bin/hostile-kernel"))?;
    fs::copy(root().join("tests/nested/outer.sh"), to.join("outer.sh"))?;
    // What tests compile or start there.
    for name in ["tests/guest", "tests/inject", "vmm/drivers"] {
        let from = root().join(name);
        if from.is_dir() {
            fs::create_dir_all(to.join(name).parent().expect("the names have one"))?;
            copy_directory(&from, &to.join(name))?;
        }
    }
    fs::copy(root().join("Makefile"), to.join("Makefile"))?;
    let files = to.join("files");
    fs::create_dir(&files)?;
    for (variable, from) in &options.files {
        fs::copy(from, files.join(variable)).with_context(|| format!("{variable}: {}", from.display()))?;
    }
    let words: Vec<u8> = options.command.iter().flat_map(|word| [word.as_bytes(), &[0]].concat()).collect();
    fs::write(to.join("command"), words)?;
    fs::write(to.join("limit"), options.timeout.as_secs().to_string())?;
    fs::write(to.join("environment"), environment(options))?;
    Ok(())
}

/// Shell variables that say where things are in the outer Linux.
fn environment(options: &Options) -> String {
    let mut text = String::from(
        "CORACLE_BIN=/coracle/bin/coracle\nCORACLE_IMAGES=/images\nCORACLE_KERNELS=/kernels\nCORACLE_WORKSPACE=/coracle\n\
         CORACLE_HOSTILE_KERNEL=/coracle/bin/hostile-kernel\nCARGO_TARGET_DIR=/var/tmp/target\nCORACLE_OUT=/out\n",
    );
    if let Some(backtrace) = std::env::var("RUST_BACKTRACE").ok().filter(|value| value.parse::<u8>().is_ok()) {
        text += &format!("RUST_BACKTRACE={backtrace}\n");
    }
    for (variable, _) in &options.files {
        text += &format!("{variable}=/coracle/files/{variable}\n");
    }
    text
}

/// Whether the disk exists, and none of the directories has got an entry since: a few of the images may have been there.
fn is_current(disk: &Path, directories: &[(&str, &Path)]) -> Result<bool> {
    let Ok(made) = fs::metadata(disk).and_then(|disk| disk.modified()) else { return Ok(false) };
    for (_, directory) in directories {
        if fs::metadata(directory)?.modified()? > made {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A disk with the directory `name`, which holds `directories` under their names; one with an empty name is that directory
/// itself.
fn cached_layer(product: &Product, name: &str, directories: &[(&str, &Path)]) -> Result<PathBuf> {
    let cache = product.outer.parent().context("the outer Linux is in the cache")?;
    // The names of the directories in the cache are digests or versions.
    let key: Vec<u8> = directories
        .iter()
        .map(|(_, path)| path.file_name().unwrap_or_default().as_bytes())
        .collect::<Vec<_>>()
        .join(&b'+');
    let path = cache.join(format!("{name}-{}.squashfs", String::from_utf8_lossy(&key)));
    if is_current(&path, directories)? {
        return Ok(path);
    }
    eprintln!("building the nested runner's disk {}", path.display());
    let work = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(cache)?;
    let tree = work.path().join("tree");
    fs::create_dir(&tree)?;
    for (inner, from) in directories {
        let to = if inner.is_empty() { tree.join(name) } else { tree.join(name).join(inner) };
        fs::create_dir_all(to.parent().context("it is below the tree")?)?;
        // Links instead of copies: everything is on the cache's file system.
        run(Command::new("cp").arg("-al").arg(from).arg(&to))?;
    }
    let made = work.path().join("layer");
    squash(&tree, &made)?;
    fs::rename(&made, &path)?;
    Ok(path)
}

fn copy_directory(from: &Path, to: &Path) -> Result<()> {
    run(Command::new("cp").arg("-r").arg(from).arg(to))
}

/// Not compressed: in the emulated outer Linux decompression costs more than reading.
fn squash(tree: &Path, to: &Path) -> Result<()> {
    let options = ["-noI", "-noD", "-noF", "-noX", "-all-root", "-quiet", "-no-progress"];
    run(Command::new("mksquashfs").arg(tree).arg(to).args(options))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let log = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}: {}", output.status, log.trim());
    Ok(())
}
