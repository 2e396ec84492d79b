// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Debian's docker-registry on loopback.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const START_TIMEOUT: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// It ends with the value.
pub(super) struct Registry {
    process: Child,
    port: u16,
}

impl Registry {
    /// Starts an empty one, which keeps its files in `directory`.
    pub(super) fn start(directory: &Path) -> Result<Registry> {
        fs::create_dir_all(directory)?;
        // The port may be taken in between; then the registry does not start.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = directory.join("config.yml");
        let storage = directory.join("storage");
        fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
                 http: {{addr: '127.0.0.1:{port}'}}\n",
                storage.display()
            ),
        )?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let registry = Registry { process: command.spawn().context("docker-registry")?, port };
        let deadline = Instant::now() + START_TIMEOUT;
        // It does not report when it listens.
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            ensure!(Instant::now() < deadline, "docker-registry does not listen on port {port}");
            std::thread::sleep(POLL_INTERVAL);
        }
        Ok(registry)
    }

    pub(super) fn authority(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// Copies the image of a layout into the registry.
    pub(super) fn push(&self, layout: &Path, name: &str) -> Result<()> {
        let mut copy = super::silent("skopeo");
        copy.args(["copy", "-q", "--dest-tls-verify=false", &format!("oci:{}:latest", layout.display())]);
        super::run_quietly(copy.arg(format!("docker://{name}")))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Both fail without harm if the process has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
