// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the guest starts from: kernel, initramfs, command line, tables, and the registers at the entry. Knows nothing of
//! KVM; runs on `main`.
//!
//! [`load`] puts everything into the guest's memory and returns the registers with which the first CPU starts. All that can be
//! wrong with the parts is found by [`check`], which needs no memory and therefore no VM.
#![forbid(unsafe_code)]

mod acpi;
mod bzimage;
pub mod cmdline;
mod compression;
pub mod description;
mod elf;
pub mod entry_state;
pub mod features;
mod file_identity;
mod foreign;
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
pub use description::{Description, MmioDevice};
pub use entry_state::EntryState;
pub use features::{Feature, Features};
pub use file_identity::file_identity;
pub use foreign::Foreign;
pub use initramfs::Initramfs;
pub use kernel::{Kernel, KernelError};
pub use kernel_cache::KernelCache;
pub use modules::{ModuleTree, ModulesError};

use start_info::{Module, StartInfo};
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryError};
use zerocopy::IntoBytes as _;

/// The guest's memory, without tracking of dirty pages.
pub type GuestMemory = vm_memory::GuestMemoryMmap<()>;

/// What a guest is made of.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    pub kernel: &'a Kernel,
    /// The archive that holds PID 1; empty for none.
    pub initramfs: &'a [u8],
    /// The kernel's command line.
    pub command_line: &'a CommandLine,
    /// How the kernel learns of processors, interrupt lines and devices.
    pub description: Description,
    /// The virtio devices, in the order in which the guest sees them.
    pub devices: &'a [MmioDevice],
    /// Virtual CPUs, 1 to 32.
    pub cpus: u8,
    /// The guest's memory, as given to [`layout::memory_regions`].
    pub memory_bytes: u64,
}

/// A guest cannot be started from these parts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The number of CPUs is out of range.
    #[error("{0} CPUs are not possible, a guest has 1 to {max}", max = layout::MAXIMUM_CPUS)]
    Cpus(u8),
    /// The size of the memory is out of range.
    #[error("memory size")]
    Memory(#[from] layout::MemorySizeError),
    /// The kernel does not fit, or cannot be loaded.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// Kernel and initramfs together are larger than the memory below 3 GiB.
    #[error(
        "an initramfs of {size} bytes does not fit behind the kernel, which ends at {kernel_end:#x}; --memory gives the \
         guest more"
    )]
    InitramfsTooLarge {
        /// Of the initramfs, bytes.
        size: u64,
        /// Where the kernel ends.
        kernel_end: u64,
    },
    /// The guest's memory does not have the size of the configuration.
    #[error("cannot write the {what} to guest memory")]
    Write {
        /// What was to be written.
        what: &'static str,
        source: GuestMemoryError,
    },
}

/// Whether a guest can be started from `parts`.
///
/// # Errors
/// A number is out of range, or kernel and initramfs do not fit into the memory.
pub fn check(parts: &Parts<'_>) -> Result<(), Error> {
    place(parts).map(|_| ())
}

/// Fills the guest's memory, which must be fresh, and returns the registers of its first CPU.
///
/// # Errors
/// As [`check`], or reading the kernel's file failed.
pub fn load(memory: &GuestMemory, parts: &Parts<'_>) -> Result<EntryState, Error> {
    let initramfs_at = place(parts)?;
    parts.kernel.load(memory)?;
    write(memory, "initramfs", initramfs_at, parts.initramfs)?;
    write(memory, "command line", layout::COMMAND_LINE, &parts.command_line.to_bytes())?;
    write_start_info(memory, parts, initramfs_at)?;
    match parts.description {
        Description::CommandLine => write(memory, "MP table", layout::MP_TABLE, &mptable::table(parts.cpus))?,
        Description::Acpi => {
            write(memory, "ACPI tables", layout::ACPI_TABLES, &acpi::tables(parts.cpus, parts.devices))?;
        }
    }
    write(memory, "descriptor table", layout::GDT, entry_state::gdt())?;
    Ok(EntryState::pvh(parts.kernel.headers().entry(), parts.description))
}

fn write_start_info(memory: &GuestMemory, parts: &Parts<'_>, initramfs_at: GuestAddress) -> Result<(), Error> {
    let map = start_info::memory_map(parts.memory_bytes);
    let module = Module::new(initramfs_at, parts.initramfs.len());
    let info = StartInfo::new(u32::from(!parts.initramfs.is_empty()), map.len(), parts.description);
    write(memory, "memory map", layout::MEMORY_MAP, map.as_bytes())?;
    write(memory, "module list", layout::MODULE_LIST, module.as_bytes())?;
    write(memory, "start info", layout::START_INFO, info.as_bytes())
}

/// Checks `parts` and finds the initramfs its place: in whole pages at the end of the memory below the hole, where the
/// kernel's early allocations, which grow upwards from its end, reach it last.
fn place(parts: &Parts<'_>) -> Result<GuestAddress, Error> {
    if !(1..=layout::MAXIMUM_CPUS).contains(&parts.cpus) {
        return Err(Error::Cpus(parts.cpus));
    }
    layout::check_memory_size(parts.memory_bytes)?;
    parts.kernel.check_fits(parts.memory_bytes)?;
    let low_end = layout::low_memory_end(parts.memory_bytes).0;
    let below_hole = parts.kernel.headers().segments().iter().filter(|segment| segment.end() <= low_end);
    let kernel_end = below_hole.map(|segment| segment.end()).max().unwrap_or(layout::HIGH_MEMORY.0);
    let size = parts.initramfs.len() as u64;
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
