// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Arithmetic on general registers (Intel SDM volume 2): bit counting, BMI1, BMI2, ADX, CRC32,
//! MOVBE, random numbers. Each function takes one or two operands. Flags that the manual leaves
//! undefined are cleared.

use super::processor;
use super::registers::{
    FLAG_ADJUST, FLAG_CARRY, FLAG_OVERFLOW, FLAG_PARITY, FLAG_SIGN, FLAG_ZERO, FLAGS_ARITHMETIC, truncate,
};
use super::step::{Step, StepResult};

/// The flags that the BMI instructions define. AF and PF are undefined.
const FLAGS_BMI: u64 = FLAGS_ARITHMETIC & !(FLAG_ADJUST | FLAG_PARITY);

/// Counts the bits set.
pub(super) fn popcnt(step: &mut Step<'_>) -> StepResult {
    let source = step.read_operand(1)?;
    step.set_flags(FLAGS_ARITHMETIC, flag(FLAG_ZERO, source == 0));
    step.write_operand(0, u64::from(source.count_ones()))
}

/// Counts the zeros below the lowest bit set.
pub(super) fn tzcnt(step: &mut Step<'_>) -> StepResult {
    let (source, bits) = (step.read_operand(1)?, bits(step));
    count(step, u64::from(source.trailing_zeros()).min(bits), source)
}

/// Counts the zeros above the highest bit set.
pub(super) fn lzcnt(step: &mut Step<'_>) -> StepResult {
    let (source, bits) = (step.read_operand(1)?, bits(step));
    count(step, u64::from(source.leading_zeros()) - (64 - bits), source)
}

fn count(step: &mut Step<'_>, zeros: u64, source: u64) -> StepResult {
    let flags = flag(FLAG_CARRY, source == 0) | flag(FLAG_ZERO, zeros == 0);
    step.set_flags(FLAG_CARRY | FLAG_ZERO, flags);
    step.write_operand(0, zeros)
}

/// Clears the bits of the first source in the second.
pub(super) fn andn(step: &mut Step<'_>) -> StepResult {
    let result = !step.read_operand(1)? & step.read_operand(2)?;
    finish(step, result, false)
}

/// Extracts a field: from bit `control[7:0]`, `control[15:8]` bits.
pub(super) fn bextr(step: &mut Step<'_>) -> StepResult {
    let (source, control) = (step.read_operand(1)?, step.read_operand(2)?);
    let (start, length) = ((control & 0xff) as u32, (control >> 8 & 0xff) as u32);
    let result = low_bits(source.checked_shr(start).unwrap_or(0), length);
    finish(step, result, false)
}

/// Isolates the lowest bit set.
pub(super) fn blsi(step: &mut Step<'_>) -> StepResult {
    let source = step.read_operand(1)?;
    finish(step, source & source.wrapping_neg(), source != 0)
}

/// Sets all bits up to the lowest bit set.
pub(super) fn blsmsk(step: &mut Step<'_>) -> StepResult {
    let source = step.read_operand(1)?;
    finish(step, source ^ source.wrapping_sub(1), source == 0)
}

/// Clears the lowest bit set.
pub(super) fn blsr(step: &mut Step<'_>) -> StepResult {
    let source = step.read_operand(1)?;
    finish(step, source & source.wrapping_sub(1), source == 0)
}

/// Clears the bits from `index[7:0]` upwards.
pub(super) fn bzhi(step: &mut Step<'_>) -> StepResult {
    let (source, index) = (step.read_operand(1)?, step.read_operand(2)? & 0xff);
    let carry = index >= bits(step);
    finish(step, low_bits(source, index as u32), carry)
}

/// Multiplies by RDX to twice the width; flags are unchanged.
pub(super) fn mulx(step: &mut Step<'_>) -> StepResult {
    let size = step.operand_size(0);
    let factor = truncate(step.registers.rdx, size);
    let product = u128::from(factor) * u128::from(step.read_operand(2)?);
    // The high half is written last: it remains where both have the same destination.
    step.write_operand(1, product as u64)?;
    step.write_operand(0, (product >> (8 * size)) as u64)
}

/// Scatters the low bits of the source to the positions in the mask; flags are unchanged.
pub(super) fn pdep(step: &mut Step<'_>) -> StepResult {
    let (source, mask) = (step.read_operand(1)?, step.read_operand(2)?);
    let result = positions(mask).enumerate().fold(0, |result, (from, to)| result | (source >> from & 1) << to);
    step.write_operand(0, result)
}

/// Gathers the bits at the positions in the mask; flags are unchanged.
pub(super) fn pext(step: &mut Step<'_>) -> StepResult {
    let (source, mask) = (step.read_operand(1)?, step.read_operand(2)?);
    let result = positions(mask).enumerate().fold(0, |result, (to, from)| result | (source >> from & 1) << to);
    step.write_operand(0, result)
}

/// Rotates right by a constant; flags are unchanged.
pub(super) fn rorx(step: &mut Step<'_>) -> StepResult {
    let (source, count) = (step.read_operand(1)?, step.read_operand(2)? as u32);
    let result = if bits(step) == 64 { source.rotate_right(count) } else { (source as u32).rotate_right(count).into() };
    step.write_operand(0, result)
}

/// Shifts right with sign; flags are unchanged.
pub(super) fn sarx(step: &mut Step<'_>) -> StepResult {
    shift(step, |value, count| ((value as i64) >> count) as u64, |value, count| ((value as i32) >> count) as u32)
}

/// Shifts left; flags are unchanged.
pub(super) fn shlx(step: &mut Step<'_>) -> StepResult {
    shift(step, |value, count| value << count, |value, count| value << count)
}

/// Shifts right; flags are unchanged.
pub(super) fn shrx(step: &mut Step<'_>) -> StepResult {
    shift(step, |value, count| value >> count, |value, count| value >> count)
}

fn shift(step: &mut Step<'_>, wide: fn(u64, u32) -> u64, narrow: fn(u32, u32) -> u32) -> StepResult {
    let (source, count) = (step.read_operand(1)?, step.read_operand(2)? as u32);
    let result = if bits(step) == 64 { wide(source, count & 63) } else { narrow(source as u32, count & 31).into() };
    step.write_operand(0, result)
}

/// Adds with the carry flag; other flags are unchanged.
pub(super) fn adcx(step: &mut Step<'_>) -> StepResult {
    add_with(step, FLAG_CARRY)
}

/// Adds with the overflow flag as the carry; other flags are unchanged.
pub(super) fn adox(step: &mut Step<'_>) -> StepResult {
    add_with(step, FLAG_OVERFLOW)
}

fn add_with(step: &mut Step<'_>, carry: u64) -> StepResult {
    let carried = u128::from(step.registers.rflags & carry != 0);
    let sum = u128::from(step.read_operand(0)?) + u128::from(step.read_operand(1)?) + carried;
    let out = flag(carry, sum >> bits(step) != 0);
    step.set_flags(carry, out);
    step.write_operand(0, sum as u64)
}

/// Accumulates a CRC with the Castagnoli polynomial, without the customary inversions.
pub(super) fn crc32(step: &mut Step<'_>) -> StepResult {
    const REFLECTED_POLYNOMIAL: u32 = 0x82f6_3b78;
    let (size, source) = (step.operand_size(1), step.read_operand(1)?);
    let mut crc = step.read_operand(0)? as u32;
    for byte in &source.to_le_bytes()[..size] {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 != 0 { REFLECTED_POLYNOMIAL } else { 0 };
        }
    }
    step.write_operand(0, crc.into())
}

/// Loads or stores with the bytes reversed.
pub(super) fn movbe(step: &mut Step<'_>) -> StepResult {
    let value = step.read_operand(1)?;
    let swapped = value.swap_bytes() >> (64 - 8 * step.operand_size(0));
    step.write_operand(0, swapped)
}

/// `MOVNTI` and `MOVDIRI`: an ordinary store is permitted.
pub(super) fn store(step: &mut Step<'_>) -> StepResult {
    let value = step.read_operand(1)?;
    step.write_operand(0, value)
}

/// Returns a random number of the host's CPU, or none.
pub(super) fn random(step: &mut Step<'_>) -> StepResult {
    let number = processor::random();
    step.set_flags(FLAGS_ARITHMETIC, flag(FLAG_CARRY, number.is_some()));
    step.write_operand(0, number.unwrap_or(0))
}

/// Writes a result with the flags of the BMI instructions.
fn finish(step: &mut Step<'_>, result: u64, carry: bool) -> StepResult {
    let bits = bits(step);
    let result = low_bits(result, bits as u32);
    let zero = flag(FLAG_ZERO, result == 0);
    let sign = flag(FLAG_SIGN, result >> (bits - 1) != 0);
    step.set_flags(FLAGS_BMI, zero | sign | flag(FLAG_CARRY, carry));
    step.write_operand(0, result)
}

/// Width of the destination, in bits.
fn bits(step: &Step<'_>) -> u64 {
    8 * step.operand_size(0) as u64
}

fn flag(flag: u64, set: bool) -> u64 {
    if set { flag } else { 0 }
}

fn low_bits(value: u64, count: u32) -> u64 {
    if count >= 64 { value } else { value & ((1 << count) - 1) }
}

/// The positions of the bits set in `mask`, lowest first.
fn positions(mask: u64) -> impl Iterator<Item = u32> {
    (0..64).filter(move |position| mask >> position & 1 != 0)
}
