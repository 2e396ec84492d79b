// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The host's side of the protocol with PID 1, as far as a benchmark needs it, for monitors that do not know it: over one socket
//! for each console port, which the monitor connects to.

use super::guest::{Guest, Network};
use super::passt;
use anyhow::{Context, Result, bail};
use guest_protocol::protocol::{FrameReader, MAX_TO_HOST, PORT_NAMES, ToGuest, ToHost, WorkloadEnd, encode};
use guest_protocol::run_spec::{Root, RunSpec, Upper};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;

/// The sockets that the monitor connects to.
pub(super) struct Ports {
    directory: PathBuf,
    listeners: Vec<UnixListener>,
}

impl Ports {
    /// Listens for every port but the console.
    pub(super) fn listen(directory: &Path) -> Result<Ports> {
        let listen = |name: &&str| UnixListener::bind(directory.join(name)).context("a socket");
        let listeners = PORT_NAMES.iter().skip(1).map(listen).collect::<Result<_>>()?;
        Ok(Ports { directory: directory.to_owned(), listeners })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// Waits for the monitor to connect and serves the control port on a thread, which ends the monitor when the workload has
/// ended. Returns the guest's standard output.
pub(super) fn serve(ports: Ports, guest: &Guest, monitor: Pid) -> Result<(Output, JoinHandle<Result<()>>)> {
    let mut streams = ports.listeners.iter().map(|listener| Ok(listener.accept()?.0)).collect::<Result<Vec<_>>>()?;
    let (stderr, stdout, control) = (streams.pop(), streams.pop(), streams.pop());
    let (control, stdout) = (control.context("control port")?, stdout.context("stdio port")?);
    let mut stderr = stderr.context("stderr port")?;
    std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::stderr()));
    let spec = spec(guest);
    let (sender, counts) = mpsc::channel();
    let output = Output { stdout, sender };
    Ok((output, std::thread::spawn(move || serve_control_port(control, spec, monitor, &counts))))
}

/// A guest's standard output. Sends the number of bytes of each read.
pub(super) struct Output {
    stdout: UnixStream,
    sender: Sender<usize>,
}

impl Read for Output {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let length = self.stdout.read(bytes)?;
        // The receiver is gone once the monitor has its signal.
        let _ = self.sender.send(length);
        Ok(length)
    }
}

/// What coracle sends to PID 1 with `--scratch tmpfs`.
fn spec(guest: &Guest) -> RunSpec {
    RunSpec {
        arguments: guest.command.clone(),
        environment: vec!["PATH=/usr/sbin:/usr/bin:/sbin:/bin".into()],
        hostname: "guest".into(),
        root: Root {
            disk_serial: "root".into(),
            share: None,
            file_systems: vec!["erofs".into()],
            upper: Upper::Tmpfs,
            read_only: false,
        },
        interfaces: match guest.network {
            Network::Tap(tap) => vec![tap.interface()],
            Network::User => vec![passt::interface()],
            _ => Vec::new(),
        },
        ..RunSpec::default()
    }
}

fn serve_control_port(mut control: UnixStream, spec: RunSpec, monitor: Pid, counts: &Receiver<usize>) -> Result<()> {
    let mut reader = FrameReader::new(MAX_TO_HOST);
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
                    let spec = spec.take().context("a second Hello")?;
                    control.write_all(&encode(&ToGuest::Spec(spec)))?;
                }
                // Like coracle, once all output has been read; but the monitor ends by its own orderly way.
                ToHost::Ended { end: WorkloadEnd::Exited(0), stdout_bytes, .. } => {
                    let mut read = 0;
                    while read < stdout_bytes {
                        read += counts.recv().context("the output is not read")? as u64;
                    }
                    return Ok(kill_process(monitor, Signal::TERM)?);
                }
                ToHost::Running => {}
                other => bail!("unexpected message from PID 1: {other:?}"),
            }
        }
    }
}
