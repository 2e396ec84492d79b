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
mod read_ahead;
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
use guest_protocol::protocol::{ToGuest, ToHost, VERSION};
use guest_protocol::run_spec::{Root, RootPreparation, RunSpec};
use relay::Control;
use root::{DetachedRoot, Disks};
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
    let end = control.receive().and_then(|first| {
        let mut disks = Disks::default();
        let (waiting, root, mut spec) = receive_spec(first, waiting?, &mut control, &mut disks)?;
        volumes::mount_disks(&spec.volumes, &mut disks)?;
        run_workload(waiting, root, &mut spec, &mut control, stdio, stderr)
    });
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

/// Does what the host asks for until it sends the run specification. Mounts the root of that, unless it was asked to before: then it is
/// detached already.
fn receive_spec(
    mut message: ToGuest,
    mut waiting: WaitingProcess,
    control: &mut Control,
    disks: &mut Disks,
) -> Result<(WaitingProcess, Option<DetachedRoot>, RunSpec), Failure> {
    let mut prepared: Option<(Root, DetachedRoot)> = None;
    loop {
        match message {
            ToGuest::TemplateStart(own) => template::take_on(own)?,
            ToGuest::PrepareRoot(preparation) if prepared.is_none() => {
                // Other disks may differ in the machines from the template.
                root::mount(&preparation.root, &mut Disks::default())?;
                root::prepare_etc(&preparation.root)?;
                waiting.enter_root(&preparation)?;
                waiting.wait_until_prepared()?;
                prepared = Some((preparation.root, root::detach()?));
                control.send(&ToHost::RootPrepared)?;
            }
            ToGuest::Spec(spec) => {
                let detached = match prepared {
                    None => {
                        root::mount(&spec.root, disks)?;
                        waiting.enter_root(&RootPreparation { root: spec.root.clone(), expected: None })?;
                        None
                    }
                    Some((root, detached)) if root == spec.root => Some(detached),
                    Some(_) => return Err(Failure::protocol("the root is not the one that was prepared")),
                };
                return Ok((waiting, detached, spec));
            }
            _ => return Err(Failure::protocol("unexpected message before the RunSpec")),
        }
        message = control.receive()?;
    }
}

/// Runs the workload of `spec`, whose root and volumes are mounted, to the last byte of its streams.
fn run_workload(
    waiting: WaitingProcess,
    root: Option<DetachedRoot>,
    spec: &mut RunSpec,
    control: &mut Control,
    stdio: OwnedFd,
    stderr: OwnedFd,
) -> Result<ToHost, Failure> {
    control.set_nonblocking()?;
    let dhcp = network::configure(spec)?;
    if let Some(dhcp) = &dhcp {
        control.send(&ToHost::Addresses(dhcp.addresses()))?;
    }
    let notify = probes::open_notify_socket(spec)?;
    let mut workload = waiting.start(spec)?;
    control.send(&ToHost::Running)?;
    let root = root.map_or_else(root::detach, Ok)?.keeping(spec, workload.mounts.take());
    let ended = relay::run(workload, spec, control, relay::Ports { stdio, stderr, notify, dhcp })?;
    root.finish(&spec.root)?;
    volumes::finish(&spec.volumes)?;
    Ok(ended)
}
