// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The host's half of the conversation with PID 1, as much of it as a benchmark needs, for monitors that have no idea of it:
//! over sockets that the monitor connects to, one a port.

use super::guest::Guest;
use anyhow::{Context, Result, bail};
use guest_protocol::protocol::{FrameReader, PORT_NAMES, ToGuest, ToHost, WorkloadEnd, encode};
use guest_protocol::run_spec::{Root, RunSpec, Upper};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

/// Sockets that wait for the monitor.
pub(super) struct Ports {
    folder: PathBuf,
    listeners: Vec<UnixListener>,
}

impl Ports {
    /// Listens for every port but the console.
    pub(super) fn listen(folder: &Path) -> Result<Ports> {
        let listen = |name: &&str| UnixListener::bind(folder.join(name)).context("a socket");
        let listeners = PORT_NAMES.iter().skip(1).map(listen).collect::<Result<_>>()?;
        Ok(Ports { folder: folder.to_owned(), listeners })
    }

    /// Where the monitor finds this port.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// Waits for the monitor, and talks to the guest on a thread, which ends the monitor when the workload has ended; returns the
/// guest's standard output.
pub(super) fn begin(ports: Ports, guest: &Guest, monitor: Pid) -> Result<(Output, JoinHandle<Result<()>>)> {
    let mut streams = ports.listeners.iter().map(|listener| Ok(listener.accept()?.0)).collect::<Result<Vec<_>>>()?;
    let (stderr, stdout, control) = (streams.pop(), streams.pop(), streams.pop());
    let (control, stdout) = (control.context("control port")?, stdout.context("stdio port")?);
    let mut stderr = stderr.context("stderr port")?;
    std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::stderr()));
    let spec = spec(guest);
    let (taken, counts) = mpsc::channel();
    Ok((Output { stdout, taken }, std::thread::spawn(move || talk(control, spec, monitor, &counts))))
}

/// A guest's standard output, which tells how much of it was read.
pub(super) struct Output {
    stdout: UnixStream,
    taken: Sender<usize>,
}

impl Read for Output {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let length = self.stdout.read(bytes)?;
        // Nobody counts once the monitor was told to end.
        let _ = self.taken.send(length);
        Ok(length)
    }
}

/// What Coracle would tell PID 1 with `--scratch tmpfs`.
fn spec(guest: &Guest) -> RunSpec {
    RunSpec {
        arguments: guest.command.clone(),
        environment: vec!["PATH=/usr/sbin:/usr/bin:/sbin:/bin".into()],
        hostname: "guest".into(),
        root: Root {
            disk_serial: "root".into(),
            file_systems: vec!["erofs".into()],
            upper: Upper::Tmpfs,
            read_only: false,
        },
        ..RunSpec::default()
    }
}

fn talk(mut control: UnixStream, spec: RunSpec, monitor: Pid, counts: &Receiver<usize>) -> Result<()> {
    let mut reader = FrameReader::default();
    let mut bytes = [0; 4096];
    let mut spec = Some(spec);
    loop {
        let length = control.read(&mut bytes).context("control port")?;
        if length == 0 {
            bail!("the control port closed before the end");
        }
        reader.push(&bytes[..length]);
        while let Some(message) = reader.next::<ToHost>().map_err(|error| anyhow::anyhow!("{error:?}"))? {
            match message {
                ToHost::Hello { .. } => {
                    let spec = spec.take().context("two greetings")?;
                    control.write_all(&encode(&ToGuest::Spec(spec)))?;
                }
                // As Coracle does, once all output was read, but by the monitor's own way to end in order.
                ToHost::Ended { end: WorkloadEnd::Exited(0), stdout_bytes, .. } => {
                    let mut read = 0;
                    while read < stdout_bytes {
                        read += counts.recv().context("nobody reads the output")? as u64;
                    }
                    return Ok(kill_process(monitor, Signal::TERM)?);
                }
                ToHost::Running => {}
                other => bail!("PID 1 said {other:?}"),
            }
        }
    }
}
