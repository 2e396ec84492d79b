// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The named ports between the outer Linux and this process: virtio-serial ports, each on a Unix socket that QEMU connects to.

use anyhow::{Context, Result};
use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

/// A port that QEMU has not connected to yet.
#[derive(Debug)]
pub(super) struct Port {
    name: &'static str,
    path: PathBuf,
    listener: UnixListener,
}

impl Port {
    pub(super) fn listen(directory: &Path, name: &'static str) -> Result<Port> {
        let path = directory.join(name);
        // An attempt to boot that failed has left its own.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| path.display().to_string());
            }
            _ => {}
        }
        let listener = UnixListener::bind(&path).with_context(|| path.display().to_string())?;
        Ok(Port { name, path, listener })
    }

    /// QEMU's options for it.
    pub(super) fn arguments(&self) -> [String; 4] {
        let (name, path) = (self.name, self.path.display());
        [
            "-chardev".into(),
            format!("socket,id={name},path={path}"),
            "-device".into(),
            format!("virtserialport,chardev={name},name={name}"),
        ]
    }

    /// Passes everything that comes to `take`, on a thread of its own, until QEMU ends.
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

#[cfg(test)]
mod tests {
    use super::Port;

    #[test]
    fn port_of_a_boot_that_failed_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        drop(Port::listen(directory.path(), "stdout").unwrap());
        Port::listen(directory.path(), "stdout").unwrap();
    }
}
