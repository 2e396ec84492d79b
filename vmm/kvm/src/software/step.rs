// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One instruction while it is completed: the registers as they were, the decoded instruction, and the accesses that it
//! may make. A completion changes `registers` (and says so if it changed `special`); the caller commits them.

use std::io;
use std::sync::Arc;

use iced_x86::{Instruction, OpKind, Register};
use kvm_bindings::{kvm_regs, kvm_sregs};
use vm_memory::GuestMemoryMmap;

use super::processor::Processor;
use super::registers::{self, CR0_EMULATION, CR0_TASK_SWITCHED};
use super::state::{Exception, VcpuState};
use super::walk::{Access, Paging};
use super::window::Window;

/// Why an instruction was not completed in the ordinary way.
#[derive(Debug)]
pub(super) enum Stop {
    /// It faults: RIP stays at it.
    Fault(Exception),
    /// It is done and raises an exception behind itself (`INT3`).
    Trap(Exception),
    /// Run it again: other vCPUs changed the page tables under it.
    Retry,
    /// Nothing here can do it; says why.
    Unable(String),
    /// The host refused to read or write the vCPU's state.
    Host(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Host(error)
    }
}

/// The result of everything that takes part in a completion.
pub(super) type Done<T = ()> = Result<T, Stop>;

/// An instruction and its surroundings.
pub(super) struct Step<'a> {
    /// The CPU, for what is not read ahead.
    pub(super) vcpu: &'a mut dyn VcpuState,
    /// Guest memory.
    pub(super) memory: &'a GuestMemoryMmap<()>,
    /// What is fixed about the CPU.
    pub(super) processor: Arc<Processor>,
    /// How linear addresses are translated, and with which rights.
    pub(super) paging: Paging,
    /// General registers; RIP already behind the instruction.
    pub(super) registers: kvm_regs,
    /// Segments and control registers.
    pub(super) special: kvm_sregs,
    /// `special` was changed and must be set.
    pub(super) special_changed: bool,
    /// What is to be done.
    pub(super) instruction: Instruction,
}

impl<'a> Step<'a> {
    /// 64-bit mode, not one of its compatible predecessors.
    pub(super) fn is_64_bit(&self) -> bool {
        self.special.efer & registers::EFER_LONG_MODE != 0 && self.special.cs.l != 0
    }

    /// Privileged instructions run at CPL 0 only.
    pub(super) fn require_supervisor(&self, otherwise: Exception) -> Done {
        self.require(self.special.ss.dpl == 0, otherwise)
    }

    /// Raises `otherwise` unless `condition` holds.
    pub(super) fn require(&self, condition: bool, otherwise: Exception) -> Done {
        if condition { Ok(()) } else { Err(Stop::Fault(otherwise)) }
    }

    /// The x87 unit is there (CR0.EM) and not lazily switched (CR0.TS).
    pub(super) fn require_x87(&self) -> Done {
        let unavailable = CR0_EMULATION | CR0_TASK_SWITCHED;
        self.require(self.special.cr0 & unavailable == 0, Exception::DEVICE_NOT_AVAILABLE)
    }

    /// Bytes of operand `number`, a general register or memory.
    pub(super) fn operand_size(&self, number: u32) -> usize {
        match self.instruction.op_kind(number) {
            OpKind::Register => self.instruction.op_register(number).size(),
            _ => self.instruction.memory_size().size(),
        }
    }

    /// The value of operand `number`: a general register, memory of up to eight bytes, or an immediate.
    pub(super) fn read_operand(&mut self, number: u32) -> Done<u64> {
        match self.instruction.op_kind(number) {
            OpKind::Register => {
                let name = self.instruction.op_register(number);
                registers::read(&self.registers, name).ok_or_else(|| Stop::Unable(format!("a read of {name:?}")))
            }
            OpKind::Memory => {
                let mut bytes = [0; 8];
                let size = self.instruction.memory_size().size().min(8);
                self.window(number, size, Access::Read)?.read(0, &mut bytes[..size])?;
                Ok(u64::from_le_bytes(bytes))
            }
            OpKind::Immediate8 => Ok(u64::from(self.instruction.immediate8())),
            kind => Err(Stop::Unable(format!("operand {number} is {kind:?}"))),
        }
    }

    /// Sets operand `number`, a general register or memory of up to eight bytes.
    pub(super) fn write_operand(&mut self, number: u32, value: u64) -> Done {
        match self.instruction.op_kind(number) {
            OpKind::Register => {
                let name = self.instruction.op_register(number);
                let written = registers::write(&mut self.registers, name, value);
                if written { Ok(()) } else { Err(Stop::Unable(format!("a write of {name:?}"))) }
            }
            OpKind::Memory => {
                let size = self.instruction.memory_size().size().min(8);
                let mut window = self.window(number, size, Access::Write)?;
                window.require(0..size)?;
                window.write(0, &value.to_le_bytes()[..size])
            }
            kind => Err(Stop::Unable(format!("operand {number} is {kind:?}"))),
        }
    }

    /// Replaces the flags in `mask` by those in `flags`.
    pub(super) fn set_flags(&mut self, mask: u64, flags: u64) {
        self.registers.rflags = self.registers.rflags & !mask | flags & mask;
    }

    /// The `size` bytes of memory that operand `number` names, to be accessed as `access`. Nothing is touched yet.
    pub(super) fn window(&self, number: u32, size: usize, access: Access) -> Done<Window<'a>> {
        let linear = self.linear_address(number, size)?;
        Ok(Window::new(self.memory, self.paging, linear, access))
    }

    /// Linear address of memory operand `number`, checked as `size` bytes against what the mode allows.
    pub(super) fn linear_address(&self, number: u32, size: usize) -> Done<u64> {
        let segment = self.instruction.memory_segment();
        let of_registers = |name: Register| match name {
            name if name.is_segment_register() => Some(0),
            Register::RIP | Register::EIP => Some(0),
            name => registers::read(&self.registers, name),
        };
        let offset = self
            .instruction
            .virtual_address(number, 0, |name, _, _| of_registers(name))
            .ok_or_else(|| Stop::Unable("an address of another kind".into()))?;
        let refused = match segment {
            Register::SS => Exception::STACK_FAULT,
            _ => Exception::GENERAL_PROTECTION,
        };
        let last = size.saturating_sub(1) as u64;
        if self.is_64_bit() {
            let linear = offset.wrapping_add(self.segment_base_64_bit(segment));
            let end = linear.wrapping_add(last);
            let canonical = self.paging.is_canonical(linear) && self.paging.is_canonical(end) && end >= linear;
            self.require(canonical, refused)?;
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
        self.require(within, refused)?;
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
