// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The named ports between the outer Linux and this process: one virtio-serial port on a Unix socket each, from which QEMU,
//! as its client, hands over what the outer Linux writes.

use anyhow::{Context, Result};
use std::io::Read;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

/// A port that waits for QEMU.
#[derive(Debug)]
pub(super) struct Port {
    name: &'static str,
    path: PathBuf,
    listener: UnixListener,
}

impl Port {
    /// Listens in `folder`.
    pub(super) fn listen(folder: &Path, name: &'static str) -> Result<Port> {
        let path = folder.join(name);
        let listener = UnixListener::bind(&path).with_context(|| path.display().to_string())?;
        Ok(Port { name, path, listener })
    }

    /// What QEMU is told about it.
    pub(super) fn arguments(&self) -> [String; 4] {
        let (name, path) = (self.name, self.path.display());
        [
            "-chardev".into(),
            format!("socket,id={name},path={path}"),
            "-device".into(),
            format!("virtserialport,chardev={name},name={name}"),
        ]
    }

    /// On a thread of its own, hands everything that comes to `take` until QEMU is gone.
    pub(super) fn read(self, mut take: impl FnMut(&[u8]) + Send + 'static) -> JoinHandle<()> {
        std::thread::spawn(move || {
            let Ok((mut stream, _)) = self.listener.accept() else { return };
            let mut bytes = [0; 64 << 10];
            while let Ok(length @ 1..) = stream.read(&mut bytes) {
                take(&bytes[..length]);
            }
        })
    }
}
