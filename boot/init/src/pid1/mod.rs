// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The steps of PID 1, in order. A failure becomes one message to the host, or, if the host cannot
//! be reached, one line on the kernel's console. The machine then ends: by the host's power cut, or
//! by a reset.

mod console_ports;
mod copy_tree;
mod dhcp;
mod enter;
mod etc;
mod exec;
mod failure;
mod files;
mod launch;
mod modules;
mod mounts;
mod network;
mod privileges;
mod probes;
mod relay;
mod root;
mod scratch;
mod snapshot;
mod staged_mounts;
mod streams;
mod template;
mod uevents;
mod volumes;
mod workload;

use crate::freestanding::{Line, reset};
use console_ports::ConsolePorts;
use core::convert::Infallible;
use failure::Failure;
use guest_protocol::protocol::{ToHost, VERSION};
use guest_protocol::run_spec::RunSpec;
use relay::Control;
use rustix::fd::OwnedFd;
use workload::WaitingProcess;

/// Serves the host until it cuts the power, or resets the machine if there is no host.
pub(crate) fn run() -> ! {
    let Err(failure) = serve_host();
    Line::new(format_args!("{failure}")).to_console();
    reset()
}

/// Fails only if the host cannot be reached.
fn serve_host() -> Result<Infallible, Failure> {
    mounts::prepare_pid1()?;
    modules::load()?;
    // A failure is reported in place of the workload's start.
    let waiting = prepare();
    let ConsolePorts { control, stdio, stderr } = ConsolePorts::open()?;
    let mut control = Control::new(control);
    control.send(&ToHost::Hello { version: VERSION })?;
    let spec = control.receive_spec();
    let end = spec.and_then(|mut spec| run_workload(waiting?, &mut spec, &mut control, stdio, stderr));
    let end = end.unwrap_or_else(ToHost::from);
    control.send(&end)?;
    loop {
        // The host cuts the power during this.
        control.receive()?;
    }
}

/// Does what every workload needs. A machine from a template has done it.
fn prepare() -> Result<WaitingProcess, Failure> {
    root::forbid_execution()?;
    network::bring_up_loopback()?;
    workload::prepare()
}

/// Runs the workload of `spec`, from its root file system to the last byte of its streams.
fn run_workload(
    waiting: WaitingProcess,
    spec: &mut RunSpec,
    control: &mut Control,
    stdio: OwnedFd,
    stderr: OwnedFd,
) -> Result<ToHost, Failure> {
    let mut disks = root::Disks::default();
    root::mount(&spec.root, &mut disks)?;
    volumes::mount_disks(&spec.volumes, &mut disks)?;
    let dhcp = network::configure(spec)?;
    if let Some(dhcp) = &dhcp {
        control.send(&ToHost::Addresses(dhcp.addresses()))?;
    }
    let notify = probes::open_notify_socket(spec)?;
    let workload = waiting.start(spec)?;
    control.send(&ToHost::Running)?;
    let root = root::detach()?;
    let ended = relay::run(workload, spec, control, relay::Ports { stdio, stderr, notify, dhcp })?;
    root.finish(&spec.root)?;
    volumes::finish(&spec.volumes)?;
    Ok(ended)
}
