// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One instruction while it is completed: the registers, the decoded instruction, and the accesses
//! that it may make. A completion changes `registers`, and `special` together with
//! `special_changed`; the caller commits them.

use super::processor::Processor;
use super::registers::{self, CR0_EMULATION, CR0_TASK_SWITCHED};
use super::vcpu_state::{Exception, VcpuState};
use super::walk::{Access, Paging};
use super::window::Window;
use crate::GuestMemory;
use iced_x86::{Instruction, OpKind, Register};
use kvm_bindings::{kvm_regs, kvm_sregs};
use std::io;
use std::sync::Arc;

/// Every other outcome of an instruction than its ordinary effect.
#[derive(Debug)]
pub(super) enum StepError {
    /// It faults: RIP stays at the instruction.
    Fault(Exception),
    /// It is complete and raises an exception, with RIP after the instruction (`INT3`).
    Trap(Exception),
    /// It must run again: other vCPUs changed the page tables meanwhile.
    Retry,
    /// It cannot be completed; the reason.
    Unsupported(String),
    /// Reading or writing the vCPU's state failed.
    Host(io::Error),
}

impl From<io::Error> for StepError {
    fn from(error: io::Error) -> Self {
        Self::Host(error)
    }
}

pub(super) type StepResult<T = ()> = Result<T, StepError>;

/// An instruction in progress.
pub(super) struct Step<'a> {
    /// Holds the state that is not read in advance.
    pub(super) vcpu: &'a mut dyn VcpuState,
    pub(super) memory: &'a GuestMemory,
    pub(super) processor: Arc<Processor>,
    pub(super) paging: Paging,
    /// General registers; RIP is already after the instruction.
    pub(super) registers: kvm_regs,
    /// Segments and control registers.
    pub(super) special: kvm_sregs,
    /// `special` was changed and must be set.
    pub(super) special_changed: bool,
    pub(super) instruction: Instruction,
}

impl<'a> Step<'a> {
    /// 64-bit mode, not compatibility or a legacy mode.
    pub(super) fn is_64_bit(&self) -> bool {
        self.special.efer & registers::EFER_LONG_MODE != 0 && self.special.cs.l != 0
    }

    /// Raises `otherwise` unless the CPL is 0.
    pub(super) fn require_supervisor(&self, otherwise: Exception) -> StepResult {
        self.require(self.special.ss.dpl == 0, otherwise)
    }

    /// Raises `otherwise` unless `condition` holds.
    pub(super) fn require(&self, condition: bool, otherwise: Exception) -> StepResult {
        if condition { Ok(()) } else { Err(StepError::Fault(otherwise)) }
    }

    /// Raises #NM if the x87 unit is absent (CR0.EM) or switched lazily (CR0.TS).
    pub(super) fn require_x87(&self) -> StepResult {
        let unavailable = CR0_EMULATION | CR0_TASK_SWITCHED;
        self.require(self.special.cr0 & unavailable == 0, Exception::DEVICE_NOT_AVAILABLE)
    }

    /// Size of operand `number`, a general register or memory, in bytes.
    pub(super) fn operand_size(&self, number: u32) -> usize {
        match self.instruction.op_kind(number) {
            OpKind::Register => self.instruction.op_register(number).size(),
            _ => self.instruction.memory_size().size(),
        }
    }

    /// The value of operand `number`: a general register, memory of up to eight bytes, or an
    /// immediate.
    pub(super) fn read_operand(&mut self, number: u32) -> StepResult<u64> {
        match self.instruction.op_kind(number) {
            OpKind::Register => {
                let name = self.instruction.op_register(number);
                registers::read(&self.registers, name)
                    .ok_or_else(|| StepError::Unsupported(format!("a read of {name:?}")))
            }
            OpKind::Memory => {
                let mut bytes = [0; 8];
                let size = self.instruction.memory_size().size().min(8);
                self.window(number, size, Access::Read)?.read(0, &mut bytes[..size])?;
                Ok(u64::from_le_bytes(bytes))
            }
            OpKind::Immediate8 => Ok(u64::from(self.instruction.immediate8())),
            kind => Err(StepError::Unsupported(format!("operand {number} is {kind:?}"))),
        }
    }

    /// Sets operand `number`, a general register or memory of up to eight bytes.
    pub(super) fn write_operand(&mut self, number: u32, value: u64) -> StepResult {
        match self.instruction.op_kind(number) {
            OpKind::Register => {
                let name = self.instruction.op_register(number);
                let written = registers::write(&mut self.registers, name, value);
                if written { Ok(()) } else { Err(StepError::Unsupported(format!("a write of {name:?}"))) }
            }
            OpKind::Memory => {
                let size = self.instruction.memory_size().size().min(8);
                let mut window = self.window(number, size, Access::Write)?;
                window.require(0..size)?;
                window.write(0, &value.to_le_bytes()[..size])
            }
            kind => Err(StepError::Unsupported(format!("operand {number} is {kind:?}"))),
        }
    }

    /// Replaces the flags in `mask` by those in `flags`.
    pub(super) fn set_flags(&mut self, mask: u64, flags: u64) {
        self.registers.rflags = self.registers.rflags & !mask | flags & mask;
    }

    /// The `size` bytes of memory operand `number`, for `access`. Nothing is accessed yet.
    pub(super) fn window(&self, number: u32, size: usize, access: Access) -> StepResult<Window<'a>> {
        let linear = self.linear_address(number, size)?;
        Ok(Window::new(self.memory, self.paging, linear, access))
    }

    /// Linear address of memory operand `number`, whose `size` bytes must be canonical or within
    /// the segment's limit.
    pub(super) fn linear_address(&self, number: u32, size: usize) -> StepResult<u64> {
        let segment = self.instruction.memory_segment();
        let of_registers = |name: Register| match name {
            name if name.is_segment_register() => Some(0),
            Register::RIP | Register::EIP => Some(0),
            name => registers::read(&self.registers, name),
        };
        let offset = self
            .instruction
            .virtual_address(number, 0, |name, _, _| of_registers(name))
            .ok_or_else(|| StepError::Unsupported("its addressing mode is not supported".into()))?;
        let violation = match segment {
            Register::SS => Exception::STACK_FAULT,
            _ => Exception::GENERAL_PROTECTION,
        };
        let last = size.saturating_sub(1) as u64;
        if self.is_64_bit() {
            let linear = offset.wrapping_add(self.segment_base_64_bit(segment));
            let end = linear.wrapping_add(last);
            let canonical = self.paging.is_canonical(linear) && self.paging.is_canonical(end) && end >= linear;
            self.require(canonical, violation)?;
            return Ok(linear);
        }
        let descriptor = match segment {
            Register::CS => &self.special.cs,
            Register::SS => &self.special.ss,
            Register::ES => &self.special.es,
            Register::FS => &self.special.fs,
            Register::GS => &self.special.gs,
            _ => &self.special.ds,
        };
        let within = descriptor.unusable == 0 && offset.saturating_add(last) <= u64::from(descriptor.limit);
        self.require(within, violation)?;
        Ok(offset.wrapping_add(descriptor.base) & 0xffff_ffff)
    }

    /// In 64-bit mode only FS and GS have bases.
    fn segment_base_64_bit(&self, segment: Register) -> u64 {
        match segment {
            Register::FS => self.special.fs.base,
            Register::GS => self.special.gs.base,
            _ => 0,
        }
    }
}
