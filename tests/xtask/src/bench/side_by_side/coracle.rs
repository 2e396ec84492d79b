// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Coracle as users start it: `coracle run oci:IMAGE COMMAND`, with the image converted before.

use super::Monitor;
use super::guest::{Guest, Network};
use super::process::Process;
use super::tap::Tap;
use crate::bench::product::Product;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};

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

    /// The root disk of `image`, converted by a run if the cache does not have it.
    pub(super) fn root_disk(&self, image: &str) -> Result<PathBuf> {
        let run = self.product.start(&["--scratch", "tmpfs"], image, &["true"])?;
        let result: Value = run.finish()?;
        let digest = result["digests"]["image"].as_str().context("the result has no image digest")?.replace(':', "-");
        let path = self.product.cache().join("coracle/images/v2").join(digest).join("root.erofs");
        ensure!(path.is_file(), "{} does not exist", path.display());
        Ok(path)
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
