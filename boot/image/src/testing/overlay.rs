// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Layers that the kernel's overlayfs writes above an image of this crate, on a loop device. Only root can mount; others skip these
//! tests.

use super::{Archive, image_of};
use crate::machine_tree::{MachineTree, TreeError};
use crate::root_disk::{RootDisk, RootFormat};
use std::fs::{self, File};
use std::process::Command;
use tempfile::TempDir;

/// The features of a kept layer.
const FEATURES: &str = "none,dir_index,dir_nlink,ext_attr,extent,extra_isize,filetype,flex_bg,has_journal,huge_file,large_file,sparse_super,uninit_bg";

/// Mounts in a namespace of its own, runs `changes` in the merged tree, and writes `files` about it. `dirty.ext4` is the layer as a
/// machine leaves it that is killed.
const SCRIPT: &str = "\
    set -e; mkdir layer lower root
    mount -o loop,noatime layer.ext4 layer; mount -o loop,ro lower.erofs lower
    mkdir -p layer/overlay/upper layer/overlay/work
    mount -t overlay overlay -o lowerdir=lower,upperdir=layer/overlay/upper,workdir=layer/overlay/work,redirect_dir=off,index=off,metacopy=off root
    (cd root; . ../changes)
    sync -f layer
    (cd root; find . -mindepth 1 -printf '%y %m %U:%G %s %T@ %n %P -> %l\\n' | LC_ALL=C sort > ../files; tar -c --sparse --numeric-owner --sort=name --xattrs --acls . > ../all.tar)
    cp --sparse=always layer.ext4 dirty.ext4
    umount root lower layer";

/// A layer, in a directory with what the kernel's view of it is.
pub(crate) struct Layer {
    pub(crate) directory: TempDir,
}

impl Layer {
    /// None where nothing can be mounted.
    pub(crate) fn of(lower: &Archive, changes: &str) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        fs::write(path.join("lower.erofs"), image_of(&[lower.bytes()]).unwrap()).unwrap();
        fs::write(path.join("changes"), changes).unwrap();
        File::create(path.join("layer.ext4")).unwrap().set_len(64 << 20).unwrap();
        let mut mke2fs = Command::new("mke2fs");
        mke2fs.args(["-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-O", FEATURES, "-J", "size=4"]);
        assert!(mke2fs.arg(path.join("layer.ext4")).output().unwrap().status.success());
        let mut command = Command::new("unshare");
        let output = command.args(["--mount", "sh", "-c", SCRIPT]).current_dir(path).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        if errors.contains("permission denied") || errors.contains("Operation not permitted") {
            eprintln!("skipped: {errors}");
            return None;
        }
        assert!(output.status.success(), "{errors}");
        Some(Self { directory })
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn tree(&self, layer: &str) -> Result<MachineTree, TreeError> {
        self.open(layer, false)
    }

    /// With the files that PID 1 writes elsewhere.
    pub(crate) fn whole_tree(&self, layer: &str) -> Result<MachineTree, TreeError> {
        self.open(layer, true)
    }

    fn open(&self, layer: &str, is_system: bool) -> Result<MachineTree, TreeError> {
        let lower = RootDisk::open(self.path("lower.erofs"), []).unwrap();
        let layer = File::open(self.path(layer)).unwrap();
        MachineTree::open(lower, RootFormat::Erofs, layer, is_system)
    }
}
