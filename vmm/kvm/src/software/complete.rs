// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The table of instructions that are completed here, and the steps of every completion: fetch,
//! decode, execute, commit. Runs on the thread of the vCPU whose KVM_RUN ended with an emulation
//! error. Every byte of input is the guest's choice.

use super::decode::{self, Fetched};
use super::extended_state::ExtendedState;
use super::registers::{CR4_PROTECTION_KEYS, FLAG_RESUME, FLAG_TRAP};
use super::step::{Step, StepError, StepResult};
use super::vcpu_state::{Exception, VcpuState};
use super::walk::Paging;
use super::{exchange, floating_point, scalar, segments, system, xrstor, xsave};
use crate::GuestMemory;
use iced_x86::{Code, Instruction, Mnemonic};
use std::fmt;

/// The effect of one instruction beyond advancing RIP.
type Completion = fn(&mut Step<'_>) -> StepResult;

/// THE TABLE. An instruction that is not in it ends the VM.
fn completion(mnemonic: Mnemonic) -> Option<Completion> {
    Some(match mnemonic {
        // Extended state.
        Mnemonic::Xsave | Mnemonic::Xsave64 => xsave::xsave,
        Mnemonic::Xsaveopt | Mnemonic::Xsaveopt64 => xsave::xsaveopt,
        Mnemonic::Xsavec | Mnemonic::Xsavec64 => xsave::xsavec,
        Mnemonic::Xsaves | Mnemonic::Xsaves64 => xsave::xsaves,
        Mnemonic::Xrstor | Mnemonic::Xrstor64 => xrstor::xrstor,
        Mnemonic::Xrstors | Mnemonic::Xrstors64 => xrstor::xrstors,
        Mnemonic::Fxsave | Mnemonic::Fxsave64 => xsave::fxsave,
        Mnemonic::Fxrstor | Mnemonic::Fxrstor64 => xrstor::fxrstor,
        Mnemonic::Xgetbv => xsave::xgetbv,

        // Control of the x87 and vector units.
        Mnemonic::Fninit => floating_point::fninit,
        Mnemonic::Fnclex => floating_point::fnclex,
        Mnemonic::Fnstsw => floating_point::fnstsw,
        Mnemonic::Fnstcw => floating_point::fnstcw,
        Mnemonic::Fldcw => floating_point::fldcw,
        Mnemonic::Emms => floating_point::emms,
        Mnemonic::Wait => floating_point::fwait,
        Mnemonic::Ldmxcsr | Mnemonic::Vldmxcsr => floating_point::ldmxcsr,
        Mnemonic::Stmxcsr | Mnemonic::Vstmxcsr => floating_point::stmxcsr,
        Mnemonic::Vzeroupper => floating_point::vzeroupper,

        // Atomic.
        Mnemonic::Cmpxchg16b => exchange::cmpxchg16b,

        // Arithmetic on general registers.
        Mnemonic::Popcnt => scalar::popcnt,
        Mnemonic::Tzcnt => scalar::tzcnt,
        Mnemonic::Lzcnt => scalar::lzcnt,
        Mnemonic::Andn => scalar::andn,
        Mnemonic::Bextr => scalar::bextr,
        Mnemonic::Blsi => scalar::blsi,
        Mnemonic::Blsmsk => scalar::blsmsk,
        Mnemonic::Blsr => scalar::blsr,
        Mnemonic::Bzhi => scalar::bzhi,
        Mnemonic::Mulx => scalar::mulx,
        Mnemonic::Pdep => scalar::pdep,
        Mnemonic::Pext => scalar::pext,
        Mnemonic::Rorx => scalar::rorx,
        Mnemonic::Sarx => scalar::sarx,
        Mnemonic::Shlx => scalar::shlx,
        Mnemonic::Shrx => scalar::shrx,
        Mnemonic::Adcx => scalar::adcx,
        Mnemonic::Adox => scalar::adox,
        Mnemonic::Crc32 => scalar::crc32,
        Mnemonic::Movbe => scalar::movbe,
        Mnemonic::Movnti | Mnemonic::Movdiri => scalar::store,
        Mnemonic::Rdrand | Mnemonic::Rdseed => scalar::random,

        // System.
        Mnemonic::Clac => system::clac,
        Mnemonic::Stac => system::stac,
        Mnemonic::Int3 => system::int3,
        Mnemonic::Int1 => system::int1,
        Mnemonic::Ud0 | Mnemonic::Ud1 | Mnemonic::Ud2 | Mnemonic::INVALID => system::invalid,
        // Shadow stacks are off, and so are their instructions.
        Mnemonic::Incsspd | Mnemonic::Incsspq => system::invalid,
        Mnemonic::Rdpid => system::rdpid,
        Mnemonic::Rdtscp => system::rdtscp,
        Mnemonic::Invpcid => system::invpcid,
        Mnemonic::Verr => segments::verr,
        Mnemonic::Verw => segments::verw,
        Mnemonic::Lar => segments::lar,
        Mnemonic::Lsl => segments::lsl,
        Mnemonic::Rdfsbase | Mnemonic::Rdgsbase => system::read_base,
        Mnemonic::Wrfsbase | Mnemonic::Wrgsbase => system::write_base,
        Mnemonic::Lfence | Mnemonic::Mfence | Mnemonic::Sfence | Mnemonic::Serialize => system::fence,
        Mnemonic::Clflush | Mnemonic::Clflushopt | Mnemonic::Clwb => system::flush_line,
        Mnemonic::Wbinvd | Mnemonic::Wbnoinvd | Mnemonic::Invd => system::flush_cache,
        Mnemonic::Endbr64 | Mnemonic::Endbr32 | Mnemonic::Rdsspd | Mnemonic::Rdsspq | Mnemonic::Cldemote => nothing,
        Mnemonic::Nop | Mnemonic::Reservednop | Mnemonic::Pause => nothing,
        Mnemonic::Prefetch | Mnemonic::Prefetchw | Mnemonic::Prefetchwt1 => nothing,
        Mnemonic::Prefetchnta | Mnemonic::Prefetcht0 | Mnemonic::Prefetcht1 | Mnemonic::Prefetcht2 => nothing,
        _ => return None,
    })
}

/// Hints, and instructions of features that are off.
fn nothing(_: &mut Step<'_>) -> StepResult {
    Ok(())
}

/// A completed instruction: the vCPU can run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completed {
    pub mnemonic: Mnemonic,
    /// The exception that is delivered instead of, or after, the instruction's effect.
    pub exception: Option<Exception>,
}

/// An instruction that could not be completed: the vCPU cannot run again.
#[derive(Debug, thiserror::Error)]
#[error("{text}, bytes {}, at rip {rip:#x}: {reason}", Bytes(.bytes))]
pub struct Incomplete {
    /// The instruction's name and form.
    pub text: String,
    /// Its bytes, as far as they could be fetched.
    pub bytes: Vec<u8>,
    pub rip: u64,
    pub reason: String,
}

/// Completes the instruction at RIP of `vcpu`, which KVM's emulator does not know.
///
/// # Errors
/// The instruction is not in the table, its operand is not in guest memory, or reading or writing
/// the vCPU's state failed. The vCPU's registers are unchanged.
pub fn complete(vcpu: &mut dyn VcpuState, memory: &GuestMemory) -> Result<Completed, Incomplete> {
    let mut progress = Progress::default();
    attempt(vcpu, memory, &mut progress).map_err(|reason| Incomplete {
        text: describe(&progress.fetched.instruction),
        bytes: progress.fetched.bytes().to_vec(),
        rip: progress.rip,
        reason,
    })
}

/// What a completion has read so far, for the report.
#[derive(Default)]
struct Progress {
    rip: u64,
    fetched: Fetched,
}

fn attempt(vcpu: &mut dyn VcpuState, memory: &GuestMemory, progress: &mut Progress) -> Result<Completed, String> {
    let mut step = match prepare(vcpu, memory) {
        Ok(step) => step,
        Err(error) => return Err(format!("cannot read the vCPU's registers: {error}")),
    };
    let before = step.registers;
    progress.rip = before.rip;
    let result = decode::fetch(memory, step.paging, &step.registers, &step.special).and_then(|fetched| {
        progress.fetched = fetched;
        step.instruction = fetched.instruction;
        let Some(completion) = completion(fetched.instruction.mnemonic()) else {
            return Err(StepError::Unsupported("not an instruction that coracle completes".into()));
        };
        step.registers.rip = advance(&step, &fetched);
        step.registers.rflags &= !FLAG_RESUME;
        completion(&mut step)
    });
    let exception = match result {
        Ok(()) if before.rflags & FLAG_TRAP != 0 => Some(Exception::SINGLE_STEP),
        Ok(()) => None,
        Err(StepError::Trap(exception)) => Some(exception),
        Err(StepError::Fault(exception)) => {
            step.registers = before;
            Some(exception)
        }
        Err(StepError::Retry) => {
            step.registers = before;
            None
        }
        Err(StepError::Unsupported(reason)) => return Err(reason),
        Err(StepError::Host(error)) => return Err(format!("cannot read or write the vCPU's state: {error}")),
    };
    commit(step, exception).map_err(|error| format!("cannot store its result: {error}"))?;
    Ok(Completed { mnemonic: progress.fetched.instruction.mnemonic(), exception })
}

fn prepare<'a>(vcpu: &'a mut dyn VcpuState, memory: &'a GuestMemory) -> std::io::Result<Step<'a>> {
    let registers = vcpu.registers()?;
    let special = vcpu.special_registers()?;
    let processor = vcpu.processor();
    let mut paging = Paging::new(&registers, &special, processor.physical_address_bits);
    if special.cr4 & CR4_PROTECTION_KEYS != 0 {
        paging.pkru = ExtendedState::new(vcpu.load_extended_state()?, &processor).pkru();
    }
    let instruction = Instruction::default();
    Ok(Step { vcpu, memory, processor, paging, registers, special, special_changed: false, instruction })
}

/// The instruction pointer after the instruction, as wide as the code segment.
fn advance(step: &Step<'_>, fetched: &Fetched) -> u64 {
    let next = step.registers.rip.wrapping_add(fetched.bytes().len() as u64);
    if step.is_64_bit() { next } else { next & 0xffff_ffff }
}

/// Stores the result in the vCPU. The general registers come first: setting them cancels the #UD
/// that KVM queued together with its error.
fn commit(mut step: Step<'_>, exception: Option<Exception>) -> std::io::Result<()> {
    step.vcpu.set_registers(&step.registers)?;
    if let Some(address) = exception.and_then(|exception| exception.fault_address) {
        step.special.cr2 = address;
        step.special_changed = true;
    }
    if step.special_changed {
        step.vcpu.set_special_registers(&step.special)?;
    }
    match exception {
        Some(exception) => step.vcpu.raise(exception),
        None => step.vcpu.end_interrupt_shadow(),
    }
}

/// Name and form of an instruction, e.g. `paddb (Paddb_xmm_xmmm128)`.
fn describe(instruction: &Instruction) -> String {
    match instruction.code() {
        Code::INVALID => "not an instruction".into(),
        code => format!("{} ({code:?})", format!("{:?}", instruction.mnemonic()).to_lowercase()),
    }
}

/// Bytes in hexadecimal, separated by spaces.
struct Bytes<'a>(&'a [u8]);

impl fmt::Display for Bytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("not read");
        }
        self.0.iter().enumerate().try_for_each(|(index, byte)| {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{byte:02x}")
        })
    }
}
