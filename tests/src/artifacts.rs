// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Paths of what is tested: the binary, the guest kernel beside it, the test images.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The root of the repository: `CORACLE_WORKSPACE`, or the directory that this was built from.
#[must_use]
pub fn workspace() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| match env::var_os("CORACLE_WORKSPACE") {
        Some(path) => PathBuf::from(path),
        None => {
            Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(1).expect("a package of the workspace").to_owned()
        }
    })
}

/// The binary: `CORACLE_BIN`, or the release build.
#[must_use]
pub fn coracle() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let path = match env::var_os("CORACLE_BIN") {
            Some(path) => PathBuf::from(path),
            None => target_directory().join("release/coracle"),
        };
        assert!(path.is_file(), "{} does not exist: run `make build` first, or set CORACLE_BIN", path.display());
        path
    })
}

/// The guest kernel that the binary finds beside itself.
#[must_use]
pub fn kernel() -> PathBuf {
    coracle().with_file_name("vmlinux")
}

/// The directory of the test images: `CORACLE_IMAGES`, or what `make -s images` prints, which builds what is missing.
#[must_use]
pub fn images() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        if let Some(path) = env::var_os("CORACLE_IMAGES") {
            return PathBuf::from(path);
        }
        let make = Command::new("make").args(["-s", "images"]).current_dir(workspace()).output().expect("make starts");
        let output = String::from_utf8_lossy(&make.stdout).into_owned();
        let log = String::from_utf8_lossy(&make.stderr).into_owned();
        assert!(make.status.success(), "`make -s images` failed: {}\n{log}", make.status);
        PathBuf::from(output.lines().last().expect("`make -s images` prints the directory as its last line"))
    })
}

/// A test image as an argument of `coracle run`.
#[must_use]
pub fn image(name: &str) -> String {
    format!("oci:{}", images().join(name).display())
}

/// A test image that is a root disk: a raw file system with its own init. Tests do not write to it.
#[must_use]
pub fn root_disk(name: &str) -> PathBuf {
    images().join(name).with_extension("ext4")
}

/// The directory of the foreign kernels, `CORACLE_KERNELS`. Building them takes minutes, so that tests never do; the nested
/// runner brings them along.
#[must_use]
pub fn foreign_kernels() -> Option<PathBuf> {
    env::var_os("CORACLE_KERNELS").map(PathBuf::from)
}

/// The kernel with Firecracker's options, in the directory of the foreign kernels.
pub const FIRECRACKER_KERNEL: &str = "firecracker-options/vmlinux";

pub(crate) fn has_firecracker_kernel() -> bool {
    foreign_kernels().is_some_and(|kernels| kernels.join(FIRECRACKER_KERNEL).is_file())
}

/// A foreign kernel as an argument of `--kernel`.
#[must_use]
pub fn foreign_kernel(path: &str) -> String {
    foreign_kernels().expect("the test needs them").join(path).display().to_string()
}

/// A directory that is kept from one run of the tests to the next, for what is slow to build.
#[must_use]
pub fn scratch_directory() -> PathBuf {
    let directory = target_directory().join("end-to-end");
    std::fs::create_dir_all(&directory).expect("the target directory is writable");
    directory
}

pub(crate) fn target_directory() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}
