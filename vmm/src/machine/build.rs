// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Builds a machine: the list of steps. Runs on `main`; no guest code runs before [`Machine::run`].

use super::attach::{AttachContext, AttachError, Slots};
use super::base::{self, Base, Restored, Size, same_shape};
use super::command_line;
use super::config::MachineConfig;
use super::console_log::ConsoleLog;
use super::disks::Disks;
use super::ports::{self, PortEnds};
use super::rates::Rates;
use super::snapshot::Savable;
use super::threads::Buses;
use crate::config::disk::{ROOT_SERIAL, SCRATCH_SERIAL};
use crate::host::memory::MemoryError;
use crate::host::thread_directory;
use crate::state::counters::{Counters, DeviceLists};
use crate::state::end::EndReason;
use crate::state::status::Link;
use boot::entry_state::{EntryState, SegmentState};
use boot::layout;
use devices::bus::{BusBuilder, OverlapError};
use devices::event_loop::{EventLoop, EventLoopError};
use devices::legacy::{ExitStatusPort, InvalidSerialState, PowerRegisters, ResetPort, Serial, SerialState, power};
use devices::virtio::block::{Block, BlockError};
use devices::virtio::fs::{Fs, FsError};
use devices::virtio::mmio::{MmioTransport, TransportState};
use devices::virtio::net::{Net, NetHandle};
use devices::virtio::rng::Rng;
use devices::virtio::vsock::Vsock;
use kvm::{KvmHost, KvmVm, Profile, Segment, StateError, Vcpu, VmError};
use std::sync::Arc;
use std::time::Duration;
use vmm_sys_util::eventfd::EventFd;

#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    /// Kernel, memory and number of vCPUs do not fit together.
    #[error(transparent)]
    Boot(#[from] boot::Error),
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error(transparent)]
    Vm(#[from] VmError),
    #[error(transparent)]
    Disk(#[from] BlockError),
    #[error("{0}")]
    Share(&'static str, #[source] FsError),
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// No thread or descriptor is left.
    #[error(transparent)]
    EventLoop(#[from] EventLoopError),
    /// A stream cannot be examined, or no descriptor is left.
    #[error("cannot set up the workload's streams")]
    Streams(#[source] std::io::Error),
    /// No descriptor is left.
    #[error("cannot set up a network device")]
    Net(#[source] std::io::Error),
    /// No descriptor is left.
    #[error("cannot set up a disk")]
    DiskDescriptor(#[source] std::io::Error),
    /// No descriptor is left.
    #[error("cannot set up the socket device")]
    Vsock(#[source] std::io::Error),
    #[error(transparent)]
    CommandLine(#[from] boot::cmdline::CommandLineError),
    #[error(transparent)]
    Overlap(#[from] OverlapError),
    #[error("the snapshot cannot be restored here")]
    State(#[from] StateError),
    #[error("the snapshot cannot be restored here")]
    SerialPort(#[from] InvalidSerialState),
    /// Or of other vCPUs.
    #[error("the snapshot is of a machine with {saved} {what}, and this one has {here}")]
    Shape { what: &'static str, saved: usize, here: usize },
}

impl BuildError {
    /// The end reason of a run whose machine could not be built.
    #[must_use]
    pub(crate) fn reason(&self) -> EndReason {
        match self {
            Self::Boot(_) => EndReason::KernelError,
            Self::Disk(_) | Self::Share(..) | Self::CommandLine(_) => EndReason::ConfigError,
            Self::Vm(_) => EndReason::KvmError,
            Self::Overlap(_) => EndReason::InternalError,
            Self::State(_) | Self::SerialPort(_) | Self::Shape { .. } => EndReason::SnapshotError,
            Self::Memory(_)
            | Self::Attach(_)
            | Self::EventLoop(_)
            | Self::Streams(_)
            | Self::Net(_)
            | Self::DiskDescriptor(_)
            | Self::Vsock(_) => EndReason::HostError,
        }
    }
}

/// The assembled microVM.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(super) vcpus: Vec<Vcpu>,
    pub(super) buses: Arc<Buses>,
    /// In the order in which they end: the console's first, disks last, so that all that the guest
    /// wrote is on them.
    pub(super) loops: Vec<EventLoop>,
    pub(super) transports: Vec<Arc<MmioTransport>>,
    /// In the order in which the guest sees the interfaces.
    pub(super) nets: Vec<NetHandle>,
    pub(super) rates: Rates,
    pub(super) disks: Disks,
    pub(super) ports: PortEnds,
    pub(super) serial: Arc<Serial>,
    pub(super) console_log: Arc<ConsoleLog>,
    pub(super) profile: Option<Arc<Profile>>,
    pub(super) savable: Savable,
    /// Of the devices of a snapshot, in their order; they are set once the event loops are confined.
    pub(super) restored: Vec<TransportState>,
    /// Disks and interfaces are not those of the states.
    pub(super) has_other_devices: bool,
    /// Last, so that it is closed last.
    pub(super) vm: KvmVm,
}

impl Machine {
    /// Of the interfaces' ends on the host.
    pub(super) fn links(&self) -> Vec<Link> {
        self.nets.iter().map(|net| if net.is_connected() { Link::Up } else { Link::Down }).collect()
    }

    /// It has the state of a snapshot or of a template.
    #[must_use]
    pub(crate) fn is_restored(&self) -> bool {
        !self.restored.is_empty()
    }

    /// What the machine has used so far; `vcpu` is the CPU time of its vCPUs.
    pub(super) fn counters(&self, vcpu: Duration) -> Counters {
        let mut devices = DeviceLists::default();
        for identity in self.transports.iter().map(|transport| transport.identity()) {
            if let (Some(list), Some(counters)) = (identity.kind.counters, &identity.counters) {
                devices.push(list, counters.snapshot());
            }
        }
        Counters::of_this_process(vcpu, devices)
    }
}

/// Builds the machine.
///
/// # Errors
/// Kernel, memory and vCPUs do not fit together, or the host lacks a resource.
pub(crate) fn build(host: &KvmHost, config: MachineConfig) -> Result<Machine, BuildError> {
    let size = Size { memory_bytes: config.memory_bytes, cpus: config.cpus };
    let Base { vm, restored: base } = base::create(host, size, config.restore, config.starts_without_state)?;
    let has_other_devices = base.as_ref().is_some_and(|base| base.has_other_devices);
    let (mut ports, mut mmio, mut slots) = (BusBuilder::default(), BusBuilder::default(), Slots::default());
    let serial = legacy(&vm, &mut ports, &config.console_log, base.as_ref().map(|base| &base.state.serial))?;

    let io = EventLoop::spawn("io")?;
    let mut attach = AttachContext { vm: &vm, mmio: &mut mmio, slots: &mut slots, transports: Vec::new() };
    let (console, port_ends) =
        ports::console(config.streams, Arc::clone(&config.console_log)).map_err(BuildError::Streams)?;
    attach.attach(Box::new(console), vec![io.handle()])?;
    attach.attach(Box::new(Rng::new()), vec![io.handle()])?;
    let mut loops = vec![io];
    let (mut nets, mut rates, mut savable) = (Vec::new(), Rates::default(), Savable::default());
    for (index, net) in config.nets.into_iter().enumerate() {
        // A loop for each interface, so that what floods it does not delay other devices.
        let net_loop = EventLoop::spawn(&format!("net-{index}"))?;
        let name = net.name.clone();
        let net = Net::open(net).map_err(BuildError::Net)?;
        rates.add_network(name, net.handle().rates());
        nets.push(net.handle());
        attach.attach(Box::new(net), vec![net_loop.handle()])?;
        loops.push(net_loop);
    }
    if let Some(mut vsock) = config.vsock {
        let vsock_loop = EventLoop::spawn("vsock")?;
        let directory = vsock.sockets.directory.try_clone().map_err(BuildError::Vsock)?;
        // Filters of container engines refuse it.
        vsock.sockets.is_entered = vsock_loop.handle().run(move || thread_directory::enter(directory))?.is_ok();
        let vsock = Vsock::open(vsock).map_err(BuildError::Vsock)?;
        attach.attach(Box::new(vsock), vec![vsock_loop.handle()])?;
        loops.push(vsock_loop);
    }
    for share in config.shares {
        let share_loop = EventLoop::spawn(&format!("fs-{}", share.tag))?;
        let option = if share.tag == ROOT_SERIAL { "--rootfs" } else { "-v" };
        let share = Fs::open(share).map_err(|error| BuildError::Share(option, error))?;
        attach.attach(Box::new(share), vec![share_loop.handle()])?;
        loops.push(share_loop);
    }
    let mut disks = Disks::default();
    for (index, disk) in config.disks.into_iter().enumerate() {
        // A loop for each disk, because file I/O blocks.
        let disk_loop = EventLoop::spawn(&format!("disk-{index}"))?;
        let serial = disk.serial.clone();
        match &*serial {
            ROOT_SERIAL => {}
            SCRATCH_SERIAL => savable.scratch = Some(disk.file.try_clone().map_err(BuildError::DiskDescriptor)?),
            other => savable.other_disk = Some(other.to_owned()),
        }
        let block = Block::open(disk)?;
        rates.add_disk(serial.clone(), block.rates());
        let handle = block.handle();
        let transport = attach.attach(Box::new(block), vec![disk_loop.handle()])?;
        disks.add(serial, handle, transport);
        loops.push(disk_loop);
    }
    let transports = attach.transports;

    let description = config.kernel.description();
    let command_line = command_line::build(host.kind(), config.cpus, description, slots.taken(), &config.append)?;
    let boot_config = boot::BootConfig {
        kernel: &config.kernel,
        initramfs: &config.initramfs,
        command_line: &command_line,
        description,
        devices: slots.taken(),
        cpus: config.cpus,
        memory_bytes: config.memory_bytes,
    };
    let (mut vcpus, restored) = match base {
        None => {
            let entry = boot::load(vm.memory(), &boot_config)?;
            (kvm::create_vcpus(host, &vm, config.cpus, &kvm_entry_state(&entry))?, Vec::new())
        }
        Some(Restored { vcpus, state, .. }) => {
            same_shape("devices", state.transports.len(), transports.len())?;
            port_ends.set_counts(state.streams);
            (vcpus, state.transports)
        }
    };
    if let Some(profile) = &config.profile {
        vcpus.iter_mut().for_each(|vcpu| vcpu.set_profile(Arc::clone(profile)));
    }
    Ok(Machine {
        vcpus,
        buses: Arc::new(Buses { ports: ports.build(), mmio: mmio.build() }),
        loops,
        transports,
        nets,
        rates,
        disks,
        ports: port_ends,
        serial,
        console_log: config.console_log,
        profile: config.profile,
        savable,
        restored,
        has_other_devices,
        vm,
    })
}

/// The loader's registers as the kvm package takes them.
fn kvm_entry_state(entry: &EntryState) -> kvm::EntryState {
    let segment = |segment: &SegmentState| Segment { selector: segment.selector, descriptor: segment.descriptor() };
    kvm::EntryState {
        rip: entry.rip,
        rbx: entry.rbx,
        rflags: entry.rflags,
        cr0: entry.cr0,
        cr4: entry.cr4,
        code: segment(&entry.code),
        data: segment(&entry.data),
        task: segment(&entry.task),
        gdt_base: entry.gdt_base,
        gdt_limit: entry.gdt_limit,
        external_interrupts: entry.external_interrupts,
    }
}

/// The legacy ports: serial line, reset line, ACPI's power registers, and exit-status port.
fn legacy(
    vm: &KvmVm,
    ports: &mut BusBuilder,
    log: &Arc<ConsoleLog>,
    saved: Option<&SerialState>,
) -> Result<Arc<Serial>, BuildError> {
    let line = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).map_err(AttachError::Event)?;
    vm.connect_interrupt(&line, layout::COM1_IRQ)?;
    let sink = Arc::clone(log) as _;
    let serial = Arc::new(match saved {
        None => Serial::new(sink, line),
        Some(saved) => Serial::restored(saved, sink, line)?,
    });
    ports.insert(u64::from(layout::COM1), u64::from(layout::COM1_PORTS), Arc::clone(&serial) as _)?;
    ports.insert(u64::from(layout::RESET), 1, Arc::new(ResetPort))?;
    let power = PowerRegisters { off: layout::SLEEP_TYPE_OFF, reset: layout::ACPI_RESET_VALUE };
    ports.insert(u64::from(layout::SLEEP_CONTROL), power::LENGTH, Arc::new(power))?;
    ports.insert(u64::from(layout::EXIT_STATUS), 1, Arc::new(ExitStatusPort))?;
    Ok(serial)
}
