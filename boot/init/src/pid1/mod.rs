// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The steps of PID 1, in order. Whatever fails becomes one message to the host, or, without a host to talk to, one line
//! on the kernel's console; the end is always a reset of the machine.

mod console_ports;
mod control;
mod dev;
mod disks;
mod enter;
mod etc;
mod exec;
mod failure;
mod files;
mod modules;
mod network;
mod probes;
mod relay;
mod root;
mod streams;
mod surroundings;
mod workload;

use crate::freestanding::Line;
use console_ports::ConsolePorts;
use control::Control;
use core::convert::Infallible;
use failure::Failure;
use guest_protocol::protocol::{ToHost, VERSION};
use guest_protocol::run_spec::RunSpec;
use rustix::system::{RebootCommand, reboot};

/// From the first instruction to the power cut, or to a reset if there is no host to cut it.
pub(crate) fn live() -> ! {
    let Err(failure) = converse();
    Line::new(format_args!("{failure}")).to_console();
    reset()
}

/// The conversation with the host, which ends it by cutting the power. Fails only if there is nobody to tell.
fn converse() -> Result<Infallible, Failure> {
    surroundings::prepare_own()?;
    modules::load()?;
    let ConsolePorts { control, stdio, stderr } = ConsolePorts::open()?;
    let mut control = Control::new(control);
    control.send(&ToHost::Hello { version: VERSION })?;
    let end =
        control.receive_spec().and_then(|spec| run(&spec, &mut control, stdio, stderr)).unwrap_or_else(ToHost::from);
    control.send(&end)?;
    loop {
        // The power is cut while this waits.
        control.receive()?;
    }
}

/// Runs the workload of `spec` from the first preparation to the last byte of its streams.
fn run(
    spec: &RunSpec,
    control: &mut Control,
    stdio: rustix::fd::OwnedFd,
    stderr: rustix::fd::OwnedFd,
) -> Result<ToHost, Failure> {
    root::mount(&spec.root)?;
    network::configure(&spec.interfaces)?;
    let notify = probes::open_notify_socket(spec)?;
    let workload = workload::start(spec)?;
    control.send(&ToHost::Running)?;
    let ended = relay::run(workload, spec, control, relay::Ports { stdio, stderr, notify })?;
    root::settle(&spec.root)?;
    Ok(ended)
}

/// Resets the machine.
pub(crate) fn reset() -> ! {
    loop {
        // It can fail for others than PID 1 only, and there is nothing else to do.
        let _ = reboot(RebootCommand::Restart);
    }
}
