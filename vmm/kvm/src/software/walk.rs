// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The page walk of a vCPU in long mode (Intel SDM volume 3, chapter 5), with 4 or 5 levels and
//! every check that the CPU makes. The tables are guest memory, which other vCPUs change
//! concurrently: each entry is read once, and accessed and dirty bits are set by compare and
//! exchange against the value that was read.
//!
//! Not supported: paging outside long mode (kernels for x86-64 enable both at once), shadow stacks,
//! supervisor protection keys. Bit 8 of non-leaf entries is ignored, as on Intel; AMD reserves it
//! in the upper levels.

use super::registers::{CR0_PAGING, CR0_WRITE_PROTECT, EFER_LONG_MODE, EFER_NO_EXECUTE, FLAG_ALIGNMENT_CHECK};
use super::registers::{CR4_5_LEVELS, CR4_PROTECTION_KEYS, CR4_SMAP, CR4_SMEP};
use kvm_bindings::{kvm_regs, kvm_sregs};
use std::sync::atomic::{AtomicU64, Ordering};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, VolatileMemory};

/// Size of the smallest page, the unit of translation.
pub(super) const PAGE_SIZE: u64 = 4096;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
/// The address bits of an entry.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// In the entry of a large page this address bit is an attribute.
const LARGE_PAT: u64 = 1 << 12;

const ERROR_PRESENT: u32 = 1 << 0;
const ERROR_WRITE: u32 = 1 << 1;
const ERROR_USER: u32 = 1 << 2;
const ERROR_RESERVED: u32 = 1 << 3;
const ERROR_FETCH: u32 = 1 << 4;
const ERROR_KEY: u32 = 1 << 5;

/// Bound on the repetitions of a walk whose entries another vCPU changes meanwhile.
const MAX_ATTEMPTS: usize = 16;

/// The kind of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    /// A write, or a read and a write of one operand.
    Write,
    Fetch,
}

/// Why a walk failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WalkError {
    /// The guest's tables do not permit the access: the error code of the #PF.
    Fault(u32),
    /// #GP.
    NotCanonical,
    /// The tables changed at each attempt: the instruction must run again.
    Contended,
    /// A table is not in guest memory.
    TableOutside(GuestAddress),
    /// Paging outside long mode.
    Mode,
}

/// The registers that a walk depends on, read once per instruction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paging {
    pub(super) cr0: u64,
    pub(super) cr3: u64,
    pub(super) cr4: u64,
    pub(super) efer: u64,
    /// The access is made in user mode (CPL 3).
    pub(super) user: bool,
    /// RFLAGS.AC: the supervisor may access user pages in spite of SMAP.
    pub(super) alignment_check: bool,
    /// Rights by protection key; 0 permits everything.
    pub(super) pkru: u32,
    pub(super) physical_address_bits: u32,
}

/// A table entry, and the guest-physical address that it was read from.
#[derive(Clone, Copy, Default)]
struct Entry {
    address: u64,
    value: u64,
}

impl Paging {
    pub(super) fn new(registers: &kvm_regs, special: &kvm_sregs, physical_address_bits: u32) -> Self {
        Self {
            cr0: special.cr0,
            cr3: special.cr3,
            cr4: special.cr4,
            efer: special.efer,
            user: special.ss.dpl == 3,
            alignment_check: registers.rflags & FLAG_ALIGNMENT_CHECK != 0,
            pkru: 0,
            physical_address_bits,
        }
    }

    /// The same, for an implicit access of the CPU, for example to a descriptor table.
    pub(super) fn implicit(self) -> Self {
        Self { user: false, alignment_check: false, ..self }
    }

    fn levels(&self) -> usize {
        if self.cr4 & CR4_5_LEVELS != 0 { 5 } else { 4 }
    }

    /// Whether `linear` is a valid address in 64-bit mode.
    pub(super) fn is_canonical(&self, linear: u64) -> bool {
        let unused = 64 - (9 * self.levels() as u32 + 12);
        ((linear << unused) as i64 >> unused) as u64 == linear
    }

    /// Guest-physical address of the byte at `linear`; valid up to the end of its page.
    ///
    /// # Errors
    /// The tables do not permit the access, change at each attempt, or are not in guest memory.
    pub(super) fn translate(
        &self,
        memory: &GuestMemoryMmap<()>,
        linear: u64,
        access: Access,
    ) -> Result<GuestAddress, WalkError> {
        if self.cr0 & CR0_PAGING == 0 {
            return Ok(GuestAddress(linear & 0xffff_ffff));
        }
        if self.efer & EFER_LONG_MODE == 0 {
            return Err(WalkError::Mode);
        }
        if !self.is_canonical(linear) {
            return Err(WalkError::NotCanonical);
        }
        for _ in 0..MAX_ATTEMPTS {
            match self.attempt(memory, linear, access) {
                Err(WalkError::Contended) => continue,
                result => return result,
            }
        }
        Err(WalkError::Contended)
    }

    fn attempt(&self, memory: &GuestMemoryMmap<()>, linear: u64, access: Access) -> Result<GuestAddress, WalkError> {
        let mut path = [Entry::default(); 5];
        let mut table = self.cr3 & ADDRESS & self.physical_mask();
        let mut rights = WRITABLE | USER;
        let mut no_execute = false;
        for level in (1..=self.levels()).rev() {
            let index = linear >> (12 + 9 * (level - 1)) & 0x1ff;
            let address = table + 8 * index;
            let value = entry(memory, address, |entry| entry.load(Ordering::Acquire))?;
            path[level - 1] = Entry { address, value };
            if value & PRESENT == 0 {
                return Err(self.fault(access, 0));
            }
            let leaf = level == 1 || value & LARGE != 0;
            if value & self.reserved(level, leaf) != 0 {
                return Err(self.fault(access, ERROR_PRESENT | ERROR_RESERVED));
            }
            rights &= value;
            no_execute |= value & NO_EXECUTE != 0;
            if leaf {
                self.check(rights, no_execute, value, access)?;
                mark(memory, &path[level - 1..self.levels()], access)?;
                let offset_mask = (PAGE_SIZE << (9 * (level - 1))) - 1;
                return Ok(GuestAddress(value & ADDRESS & !offset_mask | linear & offset_mask));
            }
            table = value & ADDRESS;
        }
        unreachable!("the lowest level is a leaf")
    }

    /// Bits that must be zero in an entry of `level`.
    fn reserved(&self, level: usize, leaf: bool) -> u64 {
        let mut reserved = ADDRESS & !self.physical_mask();
        if self.efer & EFER_NO_EXECUTE == 0 {
            reserved |= NO_EXECUTE;
        }
        if level > 3 {
            reserved |= LARGE;
        } else if leaf && level > 1 {
            let offset_mask = (PAGE_SIZE << (9 * (level - 1))) - 1;
            reserved |= ADDRESS & offset_mask & !LARGE_PAT;
        }
        reserved
    }

    fn physical_mask(&self) -> u64 {
        (1 << self.physical_address_bits) - 1
    }

    /// Whether `rights`, the combined rights of all levels, permit `access`.
    fn check(&self, rights: u64, no_execute: bool, leaf: u64, access: Access) -> Result<(), WalkError> {
        let user_page = rights & USER != 0;
        let write = access == Access::Write;
        let fetch = access == Access::Fetch;
        let write_protect = self.user || self.cr0 & CR0_WRITE_PROTECT != 0;
        let denied = match (self.user, user_page) {
            (true, false) => true,
            (false, true) if fetch => self.cr4 & CR4_SMEP != 0,
            (false, true) => self.cr4 & CR4_SMAP != 0 && !self.alignment_check,
            _ => false,
        };
        if denied || fetch && no_execute || write && rights & WRITABLE == 0 && write_protect {
            return Err(self.fault(access, ERROR_PRESENT));
        }
        if user_page && !fetch && self.cr4 & CR4_PROTECTION_KEYS != 0 {
            let key = leaf >> 59 & 0xf;
            let disabled = self.pkru >> (2 * key) & 3;
            if disabled & 1 != 0 || write && write_protect && disabled & 2 != 0 {
                return Err(self.fault(access, ERROR_PRESENT | ERROR_KEY));
            }
        }
        Ok(())
    }

    fn fault(&self, access: Access, cause: u32) -> WalkError {
        let mut code = cause;
        if access == Access::Write {
            code |= ERROR_WRITE;
        }
        if self.user {
            code |= ERROR_USER;
        }
        if access == Access::Fetch && (self.efer & EFER_NO_EXECUTE != 0 || self.cr4 & CR4_SMEP != 0) {
            code |= ERROR_FETCH;
        }
        WalkError::Fault(code)
    }
}

/// Sets the accessed bit along `path`, leaf first, and the leaf's dirty bit for a write.
fn mark(memory: &GuestMemoryMmap<()>, path: &[Entry], access: Access) -> Result<(), WalkError> {
    for (depth, Entry { address, value }) in path.iter().copied().enumerate().rev() {
        let bits = if depth == 0 && access == Access::Write { ACCESSED | DIRTY } else { ACCESSED };
        let marked = value | bits;
        if marked != value {
            let exchange =
                |entry: &AtomicU64| entry.compare_exchange(value, marked, Ordering::AcqRel, Ordering::Relaxed);
            entry(memory, address, exchange)?.map_err(|_| WalkError::Contended)?;
        }
    }
    Ok(())
}

/// Calls `access` with the table entry at a guest-physical address, a multiple of eight.
fn entry<T>(memory: &GuestMemoryMmap<()>, address: u64, access: impl FnOnce(&AtomicU64) -> T) -> Result<T, WalkError> {
    let outside = WalkError::TableOutside(GuestAddress(address));
    let slice = memory.get_slice(GuestAddress(address), 8).map_err(|_| outside)?;
    slice.get_atomic_ref(0).map(access).map_err(|_| outside)
}
