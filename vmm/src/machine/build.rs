// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Putting a machine together: the list of steps. Runs on `main`; nothing of the guest runs before [`Machine::run`].

use super::attach::{AttachError, Sockets};
use super::buses::Buses;
use super::command_line;
use super::config::MachineConfig;
use super::console_log::ConsoleLog;
use super::ports::{self, PortEnds};
use super::slots::Slots;
use crate::host::memory::{self, MemoryError};
use crate::state::counters::Counters;
use crate::state::end::EndReason;
use boot::entry_state::{EntryState, SegmentState};
use boot::layout;
use devices::bus::{BusBuilder, OverlapError};
use devices::event_loop::{EventLoop, EventLoopError};
use devices::legacy::{ExitStatusPort, PowerRegisters, ResetPort, Serial, power};
use devices::virtio::block::{Block, BlockConfig, BlockError, DiskCounters};
use devices::virtio::mmio::MmioTransport;
use devices::virtio::net::{Net, NetCounters};
use devices::virtio::rng::Rng;
use kvm::{KvmHost, KvmKind, KvmVm, Profile, ReservedPages, Segment, Vcpu, VmError};
use std::sync::Arc;
use std::time::Duration;
use vmm_sys_util::eventfd::EventFd;

const RESERVED_PAGES: ReservedPages = ReservedPages {
    identity_map: layout::KVM_IDENTITY_MAP,
    tss: layout::KVM_TSS,
    syscall_gate: layout::SYSCALL_GATE,
    syscall_gate_mmio: layout::SYSCALL_GATE_MMIO,
};

/// The machine could not be put together.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    /// The kernel, the memory or the number of vCPUs do not fit each other.
    #[error(transparent)]
    Boot(#[from] boot::Error),
    /// No memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// KVM refused.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// A disk cannot be used.
    #[error(transparent)]
    Disk(#[from] BlockError),
    /// A device could not be attached.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// Threads or descriptors are used up.
    #[error(transparent)]
    EventLoop(#[from] EventLoopError),
    /// The workload's streams cannot be examined, or descriptors are used up.
    #[error("cannot set up the workload's streams")]
    Streams(#[source] std::io::Error),
    /// The command line.
    #[error(transparent)]
    CommandLine(#[from] boot::cmdline::CommandLineError),
    /// Two devices at one address.
    #[error(transparent)]
    Overlap(#[from] OverlapError),
}

impl BuildError {
    /// The end reason of a run whose machine could not be built.
    #[must_use]
    pub(crate) fn reason(&self) -> EndReason {
        match self {
            Self::Boot(_) => EndReason::KernelError,
            Self::Disk(_) | Self::CommandLine(_) => EndReason::ConfigError,
            Self::Vm(_) => EndReason::KvmError,
            Self::Overlap(_) => EndReason::InternalError,
            Self::Memory(_) | Self::Attach(_) | Self::EventLoop(_) | Self::Streams(_) => EndReason::HostError,
        }
    }
}

/// The assembled microVM.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(super) vcpus: Vec<Vcpu>,
    pub(super) buses: Arc<Buses>,
    /// In the order in which they end: workers of disks last, so that what the guest wrote is on them.
    pub(super) loops: Vec<EventLoop>,
    pub(super) transports: Vec<Arc<MmioTransport>>,
    pub(super) ports: PortEnds,
    pub(super) serial: Arc<Serial>,
    pub(super) console_log: Arc<ConsoleLog>,
    pub(super) disks: Vec<Arc<DiskCounters>>,
    pub(super) nets: Vec<Arc<NetCounters>>,
    pub(super) profile: Option<Arc<Profile>>,
    /// Last, so that it is closed last.
    _vm: KvmVm,
}

impl Machine {
    /// What it has used, `vcpu` being the CPU time of its vCPUs.
    pub(super) fn counters(&self, vcpu: Duration) -> Counters {
        let disks = self.disks.iter().map(|counters| (&**counters).into()).collect();
        let nets = self.nets.iter().map(|counters| (&**counters).into()).collect();
        Counters::of_this_process(vcpu, disks, nets)
    }
}

/// Puts the machine together.
///
/// # Errors
/// The parts do not fit each other, or the host cannot.
pub(crate) fn build(host: &KvmHost, config: MachineConfig) -> Result<Machine, BuildError> {
    // Where kernel mode is emulated a huge page is cleared for a guest that touches little of it.
    let memory = memory::allocate(config.memory_bytes, host.kind() == KvmKind::Native)?;
    let vm = KvmVm::create(host, memory, RESERVED_PAGES)?;
    let (mut ports, mut mmio, mut slots) = (BusBuilder::default(), BusBuilder::default(), Slots::default());
    let serial = legacy(&vm, &mut ports, &config.console_log)?;

    let io = EventLoop::spawn("io")?;
    let mut sockets = Sockets { vm: &vm, mmio: &mut mmio, slots: &mut slots };
    let (console, port_ends) =
        ports::console(config.streams, Arc::clone(&config.console_log)).map_err(BuildError::Streams)?;
    let mut transports =
        vec![sockets.attach(Box::new(console), io.handle())?, sockets.attach(Box::new(Rng::new()), io.handle())?];
    let mut nets = Vec::new();
    for net_config in config.nets {
        let net = Net::new(net_config);
        nets.push(net.counters());
        transports.push(sockets.attach(Box::new(net), io.handle())?);
    }
    let mut loops = vec![io];
    let mut disks = Vec::new();
    for (index, disk_config) in config.disks.into_iter().enumerate() {
        let (disk_loop, transport, counters) = disk(&mut sockets, index, disk_config)?;
        loops.push(disk_loop);
        transports.push(transport);
        disks.push(counters);
    }

    let description = config.kernel.description();
    let command_line = command_line::build(host.kind(), config.cpus, description, slots.taken(), &config.append)?;
    let boot_parts = boot::Parts {
        kernel: &config.kernel,
        initramfs: &config.initramfs,
        command_line: &command_line,
        description,
        devices: slots.taken(),
        cpus: config.cpus,
        memory_bytes: config.memory_bytes,
    };
    let entry = boot::load(vm.memory(), &boot_parts)?;
    let mut vcpus = kvm::create_vcpus(host, &vm, config.cpus, &kvm_entry_state(&entry))?;
    if let Some(profile) = &config.profile {
        vcpus.iter_mut().for_each(|vcpu| vcpu.set_profile(Arc::clone(profile)));
    }
    Ok(Machine {
        vcpus,
        buses: Arc::new(Buses { ports: ports.build(), mmio: mmio.build() }),
        loops,
        transports,
        ports: port_ends,
        serial,
        console_log: config.console_log,
        disks,
        nets,
        profile: config.profile,
        _vm: vm,
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

/// The ports that are left of a PC: a serial line, the reset line, ACPI's power registers, and one to end with a status.
fn legacy(vm: &KvmVm, ports: &mut BusBuilder, log: &Arc<ConsoleLog>) -> Result<Arc<Serial>, BuildError> {
    let line = EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).map_err(AttachError::Event)?;
    vm.connect_interrupt(&line, layout::COM1_IRQ)?;
    let serial = Arc::new(Serial::new(Arc::clone(log) as _, line));
    ports.insert(u64::from(layout::COM1), u64::from(layout::COM1_PORTS), Arc::clone(&serial) as _)?;
    ports.insert(u64::from(layout::RESET), 1, Arc::new(ResetPort))?;
    let power = PowerRegisters { off: layout::SLEEP_TYPE_OFF, reset: layout::ACPI_RESET_VALUE };
    ports.insert(u64::from(layout::SLEEP_CONTROL), power::LENGTH, Arc::new(power))?;
    ports.insert(u64::from(layout::EXIT_STATUS), 1, Arc::new(ExitStatusPort))?;
    Ok(serial)
}

/// A disk on a loop of its own, because file I/O blocks.
fn disk(
    sockets: &mut Sockets<'_>,
    index: usize,
    config: BlockConfig,
) -> Result<(EventLoop, Arc<MmioTransport>, Arc<DiskCounters>), BuildError> {
    let block = Block::open(config)?;
    let counters = block.counters();
    let event_loop = EventLoop::spawn(&format!("disk-{index}"))?;
    let transport = sockets.attach(Box::new(block), event_loop.handle())?;
    Ok((event_loop, transport, counters))
}
