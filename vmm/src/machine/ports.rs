// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The console device's ports, and the ends of them that `main` holds. Descriptors are made here,
//! before the machine starts.

use super::config::{StreamOutput, Streams};
use super::console_log::ConsoleLog;
use super::snapshot::StreamCounts;
use devices::virtio::console::{Console, PortConfig, PortInput, PortMonitor, PortOutput};
use guest_protocol::protocol::PORT_NAMES;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The ends of the ports that `main` holds.
#[derive(Debug)]
pub(super) struct PortEnds {
    /// The host's end of the control port; non-blocking.
    pub(super) control: UnixStream,
    /// Standard input and output of the workload.
    pub(super) stdio: Arc<PortMonitor>,
    /// Standard error of the workload.
    pub(super) stderr: Arc<PortMonitor>,
}

impl PortEnds {
    /// What went through the workload's streams.
    pub(super) fn counts(&self) -> StreamCounts {
        let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        StreamCounts {
            stdin: count(&self.stdio.to_guest),
            stdout: count(&self.stdio.to_host),
            stderr: count(&self.stderr.to_host),
        }
    }

    /// Continues with the counts of a machine that was saved.
    pub(super) fn set_counts(&self, counts: StreamCounts) {
        self.stdio.to_guest.store(counts.stdin, Ordering::SeqCst);
        self.stdio.to_host.store(counts.stdout, Ordering::SeqCst);
        self.stderr.to_host.store(counts.stderr, Ordering::SeqCst);
    }
}

/// The console device with the ports of the guest protocol, in its order: kernel console, control,
/// stdio, stderr.
pub(super) fn console(streams: Streams, log: Arc<ConsoleLog>) -> io::Result<(Console, PortEnds)> {
    let (control, device_end) = UnixStream::pair()?;
    control.set_nonblocking(true)?;
    let ends = PortEnds { control, stdio: Arc::new(PortMonitor::new()?), stderr: Arc::new(PortMonitor::new()?) };
    let [console, control, stdio, stderr] = PORT_NAMES;
    let input = |descriptor| PortInput::new(descriptor);
    let ports = vec![
        PortConfig {
            name: console,
            is_console: true,
            input: None,
            output: Some(PortOutput::Log(log)),
            monitor: Arc::new(PortMonitor::new()?),
        },
        PortConfig {
            name: control,
            is_console: false,
            input: Some(input(device_end.try_clone()?.into())?),
            output: Some(PortOutput::descriptor(device_end.into())?),
            monitor: Arc::new(PortMonitor::new()?),
        },
        PortConfig {
            name: stdio,
            is_console: false,
            input: streams.input.map(input).transpose()?,
            output: streams.output.map(stream_output).transpose()?,
            monitor: Arc::clone(&ends.stdio),
        },
        PortConfig {
            name: stderr,
            is_console: false,
            input: None,
            output: streams.error.map(stream_output).transpose()?,
            monitor: Arc::clone(&ends.stderr),
        },
    ];
    Ok((Console::new(ports), ends))
}

fn stream_output(output: StreamOutput) -> io::Result<PortOutput> {
    match output {
        StreamOutput::Descriptor(descriptor) => PortOutput::descriptor(descriptor),
        StreamOutput::Log(log) => Ok(PortOutput::Log(log)),
    }
}
