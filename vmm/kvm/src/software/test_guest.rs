// SPDX-License-Identifier: Apache-2.0 OR MIT
//! For tests: a small guest in memory, with page tables, a page of code, pages of data, and a vCPU
//! in kernel mode.

use super::registers::{
    CR0_PAGING, CR0_PROTECTED, CR0_WRITE_PROTECT, CR4_FS_GS_BASE, CR4_FXSR, CR4_XSAVE, EFER_LONG_MODE, EFER_NO_EXECUTE,
};
use super::testing::{MemoryVcpu, processors};
use super::{Completed, Exception, Incomplete, Processor, complete};
use crate::GuestMemory;
use kvm_bindings::kvm_segment;
use std::sync::{Arc, LazyLock};
use vm_memory::{Bytes, GuestAddress};

pub(super) const MEMORY: u64 = 1 << 20;
pub(super) const PRESENT: u64 = 1;
pub(super) const WRITABLE: u64 = 2;
pub(super) const USER: u64 = 4;
pub(super) const NO_EXECUTE: u64 = 1 << 63;
/// Guest-physical tables: one of each level.
pub(super) const ROOT: u64 = 0x1000;
pub(super) const POINTERS: u64 = 0x2000;
pub(super) const DIRECTORY: u64 = 0x3000;
pub(super) const TABLE: u64 = 0x4000;
/// Linear address of the only 2 MiB that are mapped, page by page, to guest-physical 0.
pub(super) const BASE: u64 = 0xffff_8880_0000_0000;
/// Guest-physical address of the code, and of four pages of data.
pub(super) const CODE: u64 = 0x8000;
pub(super) const DATA: u64 = 0x10000;

/// CPUs of both vendors and the host's. Created once: CPUID is slow in a virtual machine.
pub(super) static PROCESSORS: LazyLock<Vec<(&str, Arc<Processor>)>> =
    LazyLock::new(|| processors().into_iter().map(|(name, processor)| (name, Arc::new(processor))).collect());

/// The host's CPU, for tests that also execute instructions on it.
pub(super) fn host_processor() -> &'static Arc<Processor> {
    &PROCESSORS.last().expect("the host's is the last").1
}

/// A vCPU and its memory.
pub(super) struct Guest {
    pub(super) vcpu: MemoryVcpu,
    pub(super) memory: GuestMemory,
}

impl Guest {
    /// A kernel that is about to execute `code`, with RBX at the data, on a CPU that is the same in
    /// every run.
    pub(super) fn with_code(code: &[u8]) -> Self {
        Self::on(&PROCESSORS[0].1, code)
    }

    /// The same on `processor`, with all of its state components enabled.
    pub(super) fn on(processor: &Arc<Processor>, code: &[u8]) -> Self {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY as usize)]).unwrap();
        let mut vcpu = MemoryVcpu::new(Arc::clone(processor));
        vcpu.special.cr0 = CR0_PAGING | CR0_PROTECTED | CR0_WRITE_PROTECT;
        vcpu.special.cr3 = ROOT;
        vcpu.special.cr4 = CR4_FXSR | CR4_XSAVE | CR4_FS_GS_BASE;
        vcpu.special.efer = EFER_LONG_MODE | EFER_NO_EXECUTE;
        vcpu.special.cs = kvm_segment { l: 1, s: 1, present: 1, type_: 0xb, selector: 0x10, ..Default::default() };
        vcpu.registers.rflags = 2;
        vcpu.registers.rip = BASE + CODE;
        vcpu.registers.rbx = BASE + DATA;
        let guest = Self { vcpu, memory };
        let index = |level: u64| 8 * (BASE >> (12 + 9 * (level - 1)) & 0x1ff);
        guest.poke(ROOT + index(4), POINTERS | PRESENT | WRITABLE | USER);
        guest.poke(POINTERS + index(3), DIRECTORY | PRESENT | WRITABLE | USER);
        guest.poke(DIRECTORY + index(2), TABLE | PRESENT | WRITABLE | USER);
        for page in 0..MEMORY >> 12 {
            guest.map(page << 12, page << 12 | PRESENT | WRITABLE);
        }
        guest.memory.write_slice(code, GuestAddress(CODE)).unwrap();
        guest
    }

    /// Sets the lowest-level entry of the page `offset` bytes above `BASE`.
    pub(super) fn map(&self, offset: u64, entry: u64) {
        self.poke(TABLE + 8 * (offset >> 12), entry);
    }

    /// The lowest-level entry of the page `offset` bytes above `BASE`.
    pub(super) fn entry(&self, offset: u64) -> u64 {
        self.peek(TABLE + 8 * (offset >> 12))
    }

    pub(super) fn poke(&self, address: u64, value: u64) {
        self.memory.write_obj(value, GuestAddress(address)).unwrap();
    }

    pub(super) fn peek(&self, address: u64) -> u64 {
        self.memory.read_obj(GuestAddress(address)).unwrap()
    }

    pub(super) fn bytes(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }

    pub(super) fn complete(&mut self) -> Result<Completed, Incomplete> {
        complete(&mut self.vcpu, &self.memory)
    }

    /// Completes an instruction that succeeds; RIP is after it then.
    pub(super) fn succeed(&mut self) {
        let before = self.vcpu.registers.rip;
        let completed = self.complete().unwrap();
        assert_eq!(completed.exception, None);
        assert!(self.vcpu.registers.rip > before);
    }

    /// Completes an instruction that faults; the registers are unchanged.
    pub(super) fn fault(&mut self) -> Exception {
        let before = self.vcpu.registers;
        let exception = self.complete().unwrap().exception.expect("a fault");
        assert_eq!(self.vcpu.raised, Some(exception));
        assert_eq!(self.vcpu.registers, before);
        exception
    }
}
