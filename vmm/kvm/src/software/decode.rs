// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The instruction at RIP: fetched through the guest's page tables with the rights of a fetch, then decoded. Only the
//! bytes that belong to the instruction are asked for, so that one at the end of a page does not fault on the next.

use iced_x86::{Decoder, DecoderError, DecoderOptions, Instruction};
use kvm_bindings::{kvm_regs, kvm_sregs};
use vm_memory::GuestMemoryMmap;

use super::registers::{CR0_PROTECTED, EFER_LONG_MODE};
use super::state::Exception;
use super::step::{Done, Stop};
use super::walk::{Access, PAGE_SIZE, Paging};
use super::window::Window;

/// The longest instruction that a CPU accepts.
const LONGEST: usize = 15;

/// An instruction and the bytes that it was made of.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fetched {
    /// Decoded; invalid if the bytes are no instruction.
    pub(super) instruction: Instruction,
    bytes: [u8; LONGEST],
    length: usize,
}

impl Fetched {
    /// What was fetched: the instruction's bytes, or as many as were looked at if they are none.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Fetches and decodes the instruction at RIP.
///
/// # Errors
/// The bytes cannot be fetched, or no instruction is that long.
pub(super) fn fetch(
    memory: &GuestMemoryMmap<()>,
    paging: Paging,
    registers: &kvm_regs,
    special: &kvm_sregs,
) -> Done<Fetched> {
    let bitness = bitness(special);
    let (ip, linear) = match bitness {
        64 => (registers.rip, registers.rip),
        _ => (registers.rip, registers.rip.wrapping_add(special.cs.base) & 0xffff_ffff),
    };
    let mut window = Window::new(memory, paging, linear, Access::Fetch);
    let mut fetched = Fetched::default();
    let in_first_page = ((PAGE_SIZE - linear % PAGE_SIZE) as usize).min(LONGEST);
    for available in [in_first_page, LONGEST] {
        window.read(fetched.length, &mut fetched.bytes[fetched.length..available])?;
        fetched.length = available;
        let mut decoder = Decoder::with_ip(bitness, &fetched.bytes[..available], ip, DecoderOptions::NONE);
        decoder.decode_out(&mut fetched.instruction);
        match decoder.last_error() {
            DecoderError::NoMoreBytes if available < LONGEST => continue,
            DecoderError::NoMoreBytes => return Err(Stop::Fault(Exception::GENERAL_PROTECTION)),
            DecoderError::None => fetched.length = fetched.instruction.len(),
            _ => {}
        }
        break;
    }
    Ok(fetched)
}

/// How wide the code segment makes addresses and operands.
fn bitness(special: &kvm_sregs) -> u32 {
    if special.efer & EFER_LONG_MODE != 0 && special.cs.l != 0 {
        64
    } else if special.cr0 & CR0_PROTECTED != 0 && special.cs.db != 0 {
        32
    } else {
        16
    }
}
