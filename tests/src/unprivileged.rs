// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The binary under test as the user 1000 starts it, who may read neither the build nor the images.

use crate::{Invocation, TestDir, coracle, image, images};
use std::process::Command;

/// Gives the user 1000 a `/dev/kvm` and what is in the directory `$1`, and starts the rest of the words as this user.
const AS_USER: &str = "\
    mkdir -p \"$1/files/dev\"
    mount -t tmpfs none \"$1/files/dev\"
    mknod \"$1/files/dev/kvm\" c 10 232
    chown 1000 \"$1/files/dev/kvm\"
    mount --bind \"$1/files/dev/kvm\" /dev/kvm
    chmod -R a+rwX \"$1\"
    shift
    exec setpriv --reuid=1000 --regid=1000 --clear-groups \"$@\"";

impl TestDir {
    /// Copies the binary with its kernel and PID 1, and the image `busybox`, into this directory.
    pub fn copy_product(&self) {
        for name in ["coracle", "vmlinux", "coracle-init"] {
            self.copy_program(&coracle().with_file_name(name), name);
        }
        let copied = Command::new("cp").arg("-r").arg(images().join("busybox")).arg(self.file("busybox")).status();
        assert!(copied.is_ok_and(|status| status.success()), "cannot copy {}", image("busybox"));
    }

    /// The image of [`copy_product`](Self::copy_product), as the command line has it.
    #[must_use]
    pub fn copied_image(&self) -> String {
        format!("oci:{}", self.file("busybox").display())
    }

    /// The beginning of a command line that runs as the user 1000. Needs a mount namespace of its own.
    #[must_use]
    pub fn as_user(&self) -> [String; 5] {
        ["sh", "-ec", AS_USER, "sh", &self.path().display().to_string()].map(str::to_owned)
    }
}

impl Invocation {
    /// With the binary of [`TestDir::copy_product`] in place of the one under test.
    #[must_use]
    pub fn of_copy(self, dir: &TestDir) -> Invocation {
        self.program(dir.file("coracle")).env("XDG_CACHE_HOME", dir.file("cache"))
    }
}
