// SPDX-License-Identifier: Apache-2.0 OR MIT
//! From the validated request to the parts of a machine, and to the supervisor with its PID 1.

use super::failure::{FailsAs as _, Failure};
use super::modules;
use crate::config::VmConfig;
use crate::config::plan::{InterfaceConfig, TapSource};
use crate::machine::supervisor::{Settings, Supervisor};
use crate::machine::{ConsoleLog, MachineConfig, StreamOutput, Streams};
use crate::state::end::EndReason;
use boot::Initramfs;
use boot::initramfs::FileTooLarge;
use boot::modules::Module;
use devices::virtio::net::{NetConfig, Tap, TapError};
use guest_protocol::module_list::DIRECTORY;
use kvm::Profile;
use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// The standard streams of this process could not be handed on.
#[derive(Debug, thiserror::Error)]
#[error("cannot duplicate a standard stream")]
struct StreamError(#[source] std::io::Error);

/// Parts of the machine and the supervisor with its PID 1.
pub(super) fn parts(
    config: VmConfig,
    console: Option<File>,
    streams: Streams,
    profile: Option<Arc<Profile>>,
) -> Result<(MachineConfig, Supervisor), Failure> {
    let supervisor = Supervisor::new(Settings {
        stop_signal: config.ending.stop_signal.get(),
        stop_timeout: config.ending.stop_timeout,
        timeout: config.ending.run_timeout,
        terminal: config.run_spec.terminal.is_some(),
        spec: config.run_spec.clone(),
    });
    let nets = config.interfaces.into_iter().map(net).collect::<Result<Vec<_>, _>>();
    let initramfs = initramfs(&config.init, &config.modules).fails_as(EndReason::HostError)?;
    let machine = MachineConfig {
        memory_bytes: config.memory_bytes,
        cpus: config.cpus,
        kernel: config.kernel,
        initramfs,
        append: config.append,
        disks: config.disks,
        nets: nets.fails_as(EndReason::NetworkError)?,
        streams,
        console_log: Arc::new(ConsoleLog::new(console)),
        profile,
    };
    Ok((machine, supervisor))
}

/// PID 1 and the modules that it loads.
fn initramfs(init: &[u8], modules: &[Module]) -> Result<Vec<u8>, FileTooLarge> {
    let mut initramfs = Initramfs::with_init(init)?;
    if !modules.is_empty() {
        initramfs = initramfs.directory(DIRECTORY.trim_start_matches('/'), 0o755);
        for (path, content) in modules::files(modules) {
            initramfs = initramfs.file(&path, 0o644, &content)?;
        }
    }
    Ok(initramfs.finish())
}

/// Opens the tap.
fn net(interface: InterfaceConfig) -> Result<NetConfig, TapError> {
    let tap = match interface.tap {
        TapSource::Name(name) => Tap::open(&name)?,
        TapSource::Descriptor(descriptor) => Tap::inherit(descriptor)?,
    };
    Ok(NetConfig { tap, mac: interface.mac })
}

/// Those of this process.
pub(super) fn own_streams(interactive: bool) -> Result<Streams, Failure> {
    let own = |stream: BorrowedFd<'_>| -> Result<Option<OwnedFd>, Failure> {
        stream.try_clone_to_owned().map(Some).map_err(StreamError).fails_as(EndReason::HostError)
    };
    Ok(Streams {
        input: if interactive { own(std::io::stdin().as_fd())? } else { None },
        output: own(std::io::stdout().as_fd())?.map(StreamOutput::Descriptor),
        error: own(std::io::stderr().as_fd())?.map(StreamOutput::Descriptor),
    })
}
