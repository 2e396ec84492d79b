// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The instruction at RIP: fetched through the guest's page tables with the rights of a fetch, then
//! decoded. Only bytes that belong to the instruction are fetched, so that one at the end of a page
//! does not fault on the next page.

use super::registers::{CR0_PROTECTED, EFER_LONG_MODE};
use super::step::{StepError, StepResult};
use super::vcpu_state::Exception;
use super::walk::{Access, PAGE_SIZE, Paging};
use super::window::Window;
use crate::GuestMemory;
use iced_x86::{Decoder, DecoderError, DecoderOptions, Instruction};
use kvm_bindings::{kvm_regs, kvm_sregs};

const MAX_INSTRUCTION_SIZE: usize = 15;

/// An instruction and its bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fetched {
    /// Decoded; invalid if the bytes are not an instruction.
    pub(super) instruction: Instruction,
    bytes: [u8; MAX_INSTRUCTION_SIZE],
    length: usize,
}

impl Fetched {
    /// The instruction's bytes; all fetched bytes if they are not an instruction.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Fetches and decodes the instruction at RIP.
///
/// # Errors
/// The bytes cannot be fetched, or the instruction is too long.
pub(super) fn fetch(
    memory: &GuestMemory,
    paging: Paging,
    registers: &kvm_regs,
    special: &kvm_sregs,
) -> StepResult<Fetched> {
    let bitness = bitness(special);
    let (ip, linear) = match bitness {
        64 => (registers.rip, registers.rip),
        _ => (registers.rip, registers.rip.wrapping_add(special.cs.base) & 0xffff_ffff),
    };
    let mut window = Window::new(memory, paging, linear, Access::Fetch);
    let mut fetched = Fetched::default();
    let in_first_page = ((PAGE_SIZE - linear % PAGE_SIZE) as usize).min(MAX_INSTRUCTION_SIZE);
    for available in [in_first_page, MAX_INSTRUCTION_SIZE] {
        window.read(fetched.length, &mut fetched.bytes[fetched.length..available])?;
        fetched.length = available;
        let mut decoder = Decoder::with_ip(bitness, &fetched.bytes[..available], ip, DecoderOptions::NONE);
        decoder.decode_out(&mut fetched.instruction);
        match decoder.last_error() {
            DecoderError::NoMoreBytes if available < MAX_INSTRUCTION_SIZE => continue,
            DecoderError::NoMoreBytes => return Err(StepError::Fault(Exception::GENERAL_PROTECTION)),
            DecoderError::None => fetched.length = fetched.instruction.len(),
            _ => {}
        }
        break;
    }
    Ok(fetched)
}

/// Default width of addresses and operands in the code segment.
fn bitness(special: &kvm_sregs) -> u32 {
    if special.efer & EFER_LONG_MODE != 0 && special.cs.l != 0 {
        64
    } else if special.cr0 & CR0_PROTECTED != 0 && special.cs.db != 0 {
        32
    } else {
        16
    }
}
