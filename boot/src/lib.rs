// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the guest starts from: kernel, initramfs, command line, tables, and the registers at the
//! entry. Does not depend on KVM; runs on `main`.
//!
//! [`load`] writes everything to the guest's memory and returns the registers of the first CPU.
//! [`check`] finds every error in the configuration, without memory and therefore without a VM.
#![forbid(unsafe_code)]

mod acpi;
mod bzimage;
pub mod cmdline;
mod compression;
mod elf;
pub mod entry_state;
pub mod features;
mod file_format;
mod file_identity;
pub mod hardware_description;
pub mod headers;
pub mod initramfs;
pub mod kernel;
mod kernel_cache;
pub mod layout;
pub mod modules;
mod mptable;
mod notes;
mod start_info;
#[cfg(test)]
mod test_kernel;

pub use cmdline::CommandLine;
pub use compression::UnpackError;
pub use entry_state::EntryState;
pub use features::{Feature, Features};
pub use file_format::FileFormat;
pub use file_identity::file_identity;
pub use hardware_description::{HardwareDescription, MmioDevice};
pub use initramfs::Initramfs;
pub use kernel::{Kernel, KernelError};
pub use kernel_cache::KernelCache;
pub use modules::{ModuleTree, ModulesError};

use start_info::{Module, StartInfo};
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryError};
use zerocopy::IntoBytes as _;

/// The guest's memory, without tracking of dirty pages.
pub type GuestMemory = vm_memory::GuestMemoryMmap<()>;

#[derive(Clone, Copy, Debug)]
pub struct BootConfig<'a> {
    pub kernel: &'a Kernel,
    /// The archive with PID 1; empty for none.
    pub initramfs: &'a [u8],
    pub command_line: &'a CommandLine,
    pub description: HardwareDescription,
    /// Virtio devices, in the order of their numbers in the guest.
    pub devices: &'a [MmioDevice],
    /// Virtual CPUs, 1 to 32.
    pub cpus: u8,
    /// As given to [`layout::memory_regions`].
    pub memory_bytes: u64,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("{0} CPUs: a guest has 1 to {max}", max = layout::MAX_CPUS)]
    Cpus(u8),
    #[error("memory size")]
    Memory(#[from] layout::MemorySizeError),
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// Kernel and initramfs together are larger than the memory below 3 GiB.
    #[error(
        "an initramfs of {size} bytes does not fit behind the kernel, which ends at {kernel_end:#x}; --memory gives the \
         guest more"
    )]
    InitramfsTooLarge { size: u64, kernel_end: u64 },
    /// The guest's memory is smaller than the configuration says.
    #[error("cannot write the {what} to guest memory")]
    Write { what: &'static str, source: GuestMemoryError },
}

/// Checks that all numbers are in range, and that kernel and initramfs fit into the memory.
pub fn check(config: &BootConfig<'_>) -> Result<(), Error> {
    place_initramfs(config).map(|_| ())
}

/// Fills the guest's memory, which must be zeroed, and returns the registers of its first CPU.
/// Fails as [`check`] does, or if reading the kernel's file fails.
pub fn load(memory: &GuestMemory, config: &BootConfig<'_>) -> Result<EntryState, Error> {
    let initramfs_at = place_initramfs(config)?;
    config.kernel.load(memory)?;
    write(memory, "initramfs", initramfs_at, config.initramfs)?;
    write(memory, "command line", layout::COMMAND_LINE, &config.command_line.to_bytes())?;
    write_start_info(memory, config, initramfs_at)?;
    match config.description {
        HardwareDescription::CommandLine => write(memory, "MP table", layout::MP_TABLE, &mptable::table(config.cpus))?,
        HardwareDescription::Acpi => {
            write(memory, "ACPI tables", layout::ACPI_TABLES, &acpi::tables(config.cpus, config.devices))?;
        }
    }
    write(memory, "descriptor table", layout::GDT, entry_state::gdt())?;
    Ok(EntryState::pvh(config.kernel.headers().entry(), config.description))
}

fn write_start_info(memory: &GuestMemory, config: &BootConfig<'_>, initramfs_at: GuestAddress) -> Result<(), Error> {
    let map = start_info::memory_map(config.memory_bytes);
    let module = Module::new(initramfs_at, config.initramfs.len());
    let info = StartInfo::new(u32::from(!config.initramfs.is_empty()), map.len(), config.description);
    write(memory, "memory map", layout::MEMORY_MAP, map.as_bytes())?;
    write(memory, "module list", layout::MODULE_LIST, module.as_bytes())?;
    write(memory, "start info", layout::START_INFO, info.as_bytes())
}

/// Checks `config` and returns the address of the initramfs: in whole pages at the end of the
/// memory below the hole, the last place that the kernel's early allocations reach, which grow
/// upwards from its end.
fn place_initramfs(config: &BootConfig<'_>) -> Result<GuestAddress, Error> {
    if !(1..=layout::MAX_CPUS).contains(&config.cpus) {
        return Err(Error::Cpus(config.cpus));
    }
    layout::check_memory_size(config.memory_bytes)?;
    config.kernel.check_fits(config.memory_bytes)?;
    let low_end = layout::low_memory_end(config.memory_bytes).0;
    let below_hole = config.kernel.headers().segments().iter().filter(|segment| segment.end() <= low_end);
    let kernel_end = below_hole.map(|segment| segment.end()).max().unwrap_or(layout::HIGH_MEMORY.0);
    let size = config.initramfs.len() as u64;
    let start = low_end.checked_sub(size).map(|start| start / layout::PAGE_SIZE * layout::PAGE_SIZE);
    match start {
        Some(start) if start >= kernel_end => Ok(GuestAddress(start)),
        _ => Err(Error::InitramfsTooLarge { size, kernel_end }),
    }
}

fn write(memory: &GuestMemory, what: &'static str, to: GuestAddress, bytes: &[u8]) -> Result<(), Error> {
    memory.write_slice(bytes, to).map_err(|source| Error::Write { what, source })
}

#[cfg(test)]
mod tests;
