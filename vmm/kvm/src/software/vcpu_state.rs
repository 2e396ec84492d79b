// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The state of a virtual CPU that completions access, as a trait: the table of instructions and
//! everything below it do not depend on KVM, so they run in tests and under the fuzzer without
//! `/dev/kvm`. Every method is called on the vCPU's own thread, between two runs of the guest.

use super::processor::Processor;
use kvm_bindings::{kvm_regs, kvm_sregs};
use std::io;
use std::sync::Arc;

/// The state of one stopped virtual CPU, read and written in parts, because most instructions need
/// few of them.
///
/// Errors are the host's: the guest's state was accepted by the host before, so a guest cannot
/// cause them.
pub trait VcpuState {
    /// Fixed properties of the guest's CPU.
    fn processor(&self) -> Arc<Processor>;

    /// General registers, RIP and RFLAGS.
    fn registers(&mut self) -> io::Result<kvm_regs>;

    /// Sets what [`registers`](Self::registers) reads. Cancels an exception that the host queued
    /// with its error.
    fn set_registers(&mut self, registers: &kvm_regs) -> io::Result<()>;

    /// Segments, control registers, EFER.
    fn special_registers(&mut self) -> io::Result<kvm_sregs>;

    /// Sets what [`special_registers`](Self::special_registers) reads.
    fn set_special_registers(&mut self, special: &kvm_sregs) -> io::Result<()>;

    /// XCR0: the state components that the XSAVE family manages.
    fn enabled_components(&mut self) -> io::Result<u64>;

    /// IA32_XSS: the components that only `XSAVES` and `XRSTORS` manage.
    fn supervisor_components(&mut self) -> io::Result<u64>;

    /// IA32_TSC_AUX.
    fn tsc_aux(&mut self) -> io::Result<u64>;

    /// The guest's time stamp counter.
    fn time_stamp_counter(&mut self) -> io::Result<u64>;

    /// Invalidates all translations of linear addresses.
    fn flush_translations(&mut self) -> io::Result<()>;

    /// Reads the extended state into a buffer of the implementation and returns it: an XSAVE area
    /// in standard format, as long as the host's components require, and at least with a header.
    fn load_extended_state(&mut self) -> io::Result<&mut [u8]>;

    /// Sets the CPU's extended state from the buffer that
    /// [`load_extended_state`](Self::load_extended_state) returned.
    fn store_extended_state(&mut self) -> io::Result<()>;

    /// Whether an interrupt was taken from its controller, so that it is delivered when the guest
    /// runs next, regardless of RFLAGS.IF.
    fn interrupt_is_injected(&mut self) -> io::Result<bool>;

    /// Delivers `exception` when the guest runs next. Called after the registers were set.
    fn raise(&mut self, exception: Exception) -> io::Result<()>;

    /// Inhibits interrupts for one instruction, as STI and MOV SS do. Called after the registers
    /// were set.
    fn begin_interrupt_shadow(&mut self) -> io::Result<()>;

    /// Ends the interrupt shadow of STI or MOV SS. Called after the registers were set.
    fn end_interrupt_shadow(&mut self) -> io::Result<()>;
}

/// An exception to deliver to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    pub vector: u8,
    /// Present for the vectors that have one.
    pub error_code: Option<u32>,
    /// The new value of CR2 (page faults).
    pub fault_address: Option<u64>,
    /// Set DR6.BS: the debug exception that follows an instruction run with RFLAGS.TF.
    pub single_step: bool,
}

impl Exception {
    /// #DB by `INT1`.
    pub const DEBUG: Self = Self::plain(1);
    /// #DB after an instruction, by RFLAGS.TF.
    pub const SINGLE_STEP: Self = Self { single_step: true, ..Self::plain(1) };
    /// #BP.
    pub const BREAKPOINT: Self = Self::plain(3);
    /// #UD.
    pub const INVALID_OPCODE: Self = Self::plain(6);
    /// #NM.
    pub const DEVICE_NOT_AVAILABLE: Self = Self::plain(7);
    /// #SS(0).
    pub const STACK_FAULT: Self = Self::with_code(12, 0);
    /// #GP(0).
    pub const GENERAL_PROTECTION: Self = Self::with_code(13, 0);
    /// #MF.
    pub const FLOATING_POINT: Self = Self::plain(16);

    const fn plain(vector: u8) -> Self {
        Self { vector, error_code: None, fault_address: None, single_step: false }
    }

    const fn with_code(vector: u8, error_code: u32) -> Self {
        Self { error_code: Some(error_code), ..Self::plain(vector) }
    }

    /// #PF at `address`.
    pub const fn page_fault(address: u64, error_code: u32) -> Self {
        Self { fault_address: Some(address), ..Self::with_code(14, error_code) }
    }
}
