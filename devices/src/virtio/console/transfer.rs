// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One port in use: its two queues, its host descriptors, and whether they were ready when last
//! tried. Runs on the `io` event loop.

use super::super::chain::{Chain, Reader};
use super::super::queue::{Served, Virtqueue};
use super::host_stream::HostStream;
use super::port::{PortConfig, PortInput, PortMonitor, PortOutput};
use crate::guest_warn;
use crate::log_sink::LogSink;
use crate::turn::{MAX_STEP_BYTES, Turn};
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use vmm_sys_util::epoll::EventSet;

/// Bytes of one chain that are passed on. Drivers send a few pages at most.
pub(super) const MAX_TRANSMIT_BYTES: usize = MAX_STEP_BYTES as usize;
/// Bytes that a log is given at once.
const LOG_BUF_SIZE: usize = 1024;

pub(super) struct Port {
    pub(super) name: &'static str,
    pub(super) is_console: bool,
    pub(super) receive: Virtqueue,
    pub(super) transmit: Virtqueue,
    pub(super) input: Option<PortInput>,
    pub(super) output: Option<PortOutput>,
    /// A process in the guest has the port open.
    pub(super) guest_open: bool,
    /// The input did not return `WouldBlock` when it was last read.
    readable: bool,
    /// Bytes of the first chain that the output has accepted.
    pub(super) passed_on: usize,
    monitor: Arc<PortMonitor>,
}

impl Port {
    pub(super) fn new(config: PortConfig, receive: Virtqueue, transmit: Virtqueue, guest_open: bool) -> Self {
        let PortConfig { name, is_console, input, output, monitor } = config;
        let readable = input.is_some() && !monitor.input_ended.load(Ordering::SeqCst);
        Self { name, is_console, receive, transmit, input, output, guest_open, readable, passed_on: 0, monitor }
    }

    /// Input came, or ended.
    pub(super) fn input_changed(&mut self, turn: &mut Turn<'_>) {
        self.readable = !self.monitor.input_ended.load(Ordering::SeqCst);
        self.receive(turn);
    }

    /// The output accepts bytes again, or has no reader any more.
    pub(super) fn output_changed(&mut self, ready: EventSet, turn: &mut Turn<'_>) {
        if ready.contains(EventSet::ERROR) {
            self.monitor.close_output();
        }
        self.transmit(turn);
    }

    /// Fills the guest's buffers with input, as long as there are both.
    pub(super) fn receive(&mut self, turn: &mut Turn<'_>) {
        let Self { input, readable, guest_open, monitor, name, .. } = self;
        self.receive.serve(turn, |chain| match input {
            Some(input) if *readable && *guest_open => receive_into(chain, input, readable, monitor, name),
            _ => Served::Later,
        });
    }

    /// Passes on what the guest sent, as far as the output accepts it.
    pub(super) fn transmit(&mut self, turn: &mut Turn<'_>) {
        let Self { output, passed_on, monitor, name, .. } = self;
        self.transmit.serve(turn, |chain| {
            let sent = &mut chain.readable;
            if sent.remaining() > MAX_TRANSMIT_BYTES {
                guest_warn!("console port {name}: {} bytes at once exceed {MAX_TRANSMIT_BYTES}", sent.remaining());
                return Served::Done(0);
            }
            sent.skip(*passed_on);
            let all = match output {
                _ if monitor.output_closed.load(Ordering::SeqCst) => drop_rest(sent, monitor),
                None => drop_rest(sent, monitor),
                Some(PortOutput::Log(log)) => write_to_log(sent, &**log, monitor),
                Some(PortOutput::Stream(stream)) => {
                    let before = sent.remaining();
                    let all = write_to_stream(sent, &stream.0, monitor, name);
                    *passed_on += before - sent.remaining();
                    all
                }
            };
            if !all {
                return Served::Later;
            }
            *passed_on = 0;
            Served::Done(0)
        });
    }
}

fn receive_into(
    chain: &mut Chain<'_>,
    input: &PortInput,
    readable: &mut bool,
    monitor: &PortMonitor,
    name: &str,
) -> Served {
    // Reading zero bytes would look like the end.
    if chain.writable.remaining() == 0 {
        return Served::Done(0);
    }
    match input.0.read(&mut chain.writable) {
        Ok(0) => monitor.end_input(),
        Ok(length) => {
            monitor.add_to_guest(length);
            // A chain has less than 4 GiB.
            return Served::Done(length as u32);
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        Err(error) => {
            // EIO of a terminal that hung up, EISDIR of a directory: for the guest it is the end.
            guest_warn!("console port {name}: input ends: {error}");
            monitor.end_input();
        }
    }
    *readable = false;
    Served::Later
}

fn drop_rest(sent: &mut Reader<'_>, monitor: &PortMonitor) -> bool {
    monitor.add_to_host(sent.remaining());
    sent.skip(usize::MAX);
    true
}

fn write_to_log(sent: &mut Reader<'_>, log: &dyn LogSink, monitor: &PortMonitor) -> bool {
    let mut text = [0; LOG_BUF_SIZE];
    while sent.remaining() > 0 {
        let length = sent.remaining().min(text.len());
        sent.read_exact(&mut text[..length]).expect("the length was limited to what remains");
        log.write(&text[..length]);
        monitor.add_to_host(length);
    }
    true
}

/// Whether all was accepted, or dropped because the output is closed.
fn write_to_stream(sent: &mut Reader<'_>, stream: &HostStream, monitor: &PortMonitor, name: &str) -> bool {
    while sent.remaining() > 0 {
        match stream.write(sent) {
            Ok(length) if length > 0 => monitor.add_to_host(length),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            result => {
                // A reader that has closed is normal; a full disk gets a line.
                if let Err(error) = result
                    && error.kind() != ErrorKind::BrokenPipe
                {
                    guest_warn!("console port {name}: output is dropped from here on: {error}");
                }
                monitor.close_output();
                return drop_rest(sent, monitor);
            }
        }
    }
    true
}
