// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Coracle as users start it: `coracle run oci:IMAGE COMMAND`, with the image converted before.

use super::Monitor;
use super::guest::{Guest, Network};
use super::process::Process;
use super::tap::Tap;
use crate::bench::product::Product;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

pub(super) struct Coracle {
    product: Product,
}

impl Coracle {
    pub(super) fn find() -> Result<Coracle> {
        Ok(Coracle { product: Product::find()? })
    }

    /// A file beside the binary.
    pub(super) fn beside(&self, name: &str) -> PathBuf {
        self.product.binary().with_file_name(name)
    }

    /// Writes the root disk of `image` to `path`, and leaves it in the cache for later runs.
    pub(super) fn export_root_disk(&self, image: &str, path: &Path) -> Result<()> {
        let layout = format!("oci:{}", self.product.image(image).display());
        let mut command = Command::new(self.product.binary());
        command.args(["image", "export", "--format", "erofs", &layout]).arg(path);
        let status = command.env("XDG_CACHE_HOME", self.product.cache()).status();
        let status = status.with_context(|| self.product.binary().display().to_string())?;
        ensure!(status.success(), "the export of {image} ended with {status}");
        Ok(())
    }
}

impl Monitor for Coracle {
    fn name(&self) -> &'static str {
        "coracle"
    }

    fn start(&self, guest: &Guest) -> Result<Process> {
        let directory = tempfile::tempdir()?;
        let image = format!("oci:{}", self.product.image(guest.image).display());
        let mut command = self.product.run_command(self.product.cache(), directory.path());
        command.args(["--scratch", "tmpfs", "--cpus", "1", "--memory", &format!("{}m", guest.memory_mib)]);
        if let Some(disk) = &guest.disk {
            command.arg("--disk").arg(disk_option(disk));
        }
        let network = match &guest.network {
            Network::None => "none".into(),
            Network::Tap(tap) => format!("tap={},ip={}/{}", tap.name, Tap::GUEST, Tap::PREFIX),
            Network::User => "user".into(),
            Network::Adopted => "adopt=eth0".into(),
            Network::Mirrored { tap, options } => format!("tap={tap},{options}"),
        };
        command.args(["--network", &network]);
        command.arg(image).args(&guest.command);
        Process::start(guest.in_namespace(command), directory)
    }
}

fn disk_option(path: &Path) -> String {
    format!("path={},serial=bench", path.display())
}
