// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `CMPXCHG16B` (Intel SDM volume 2), atomic against the other vCPUs: the CPU's own instruction does it, on the host's
//! mapping of the guest's memory.
#![allow(unsafe_code)] // A 16-byte atomic access has no safe form.

use super::registers::FLAG_ZERO;
use super::state::Exception;
use super::step::{Done, Step, Stop};
use super::walk::Access;
use std::arch::x86_64::cmpxchg16b;
use std::sync::atomic::Ordering;

const SIZE: usize = 16;

/// Compares RDX:RAX with memory; stores RCX:RBX there if they are equal, loads them if not. The prefix `LOCK` makes no
/// difference: the exchange is always atomic.
pub(super) fn compare_exchange_16(step: &mut Step<'_>) -> Done {
    if !std::arch::is_x86_feature_detected!("cmpxchg16b") {
        return Err(Stop::Unable("the host's CPU does not have it".into()));
    }
    let linear = step.linear_address(0, SIZE)?;
    step.require(linear.is_multiple_of(SIZE as u64), Exception::GENERAL_PROTECTION)?;
    let operand = step.window(0, SIZE, Access::Write)?.slice(0, SIZE)?;
    let guard = operand.ptr_guard_mut();
    let pointer = guard.as_ptr().cast::<u128>();
    if !pointer.is_aligned() {
        return Err(Stop::Unable("guest memory is not mapped by whole pages".into()));
    }
    let expected = pair(step.registers.rdx, step.registers.rax);
    let replacement = pair(step.registers.rcx, step.registers.rbx);
    // SAFETY: the feature was detected; `operand` is 16 bytes of mapped guest memory, `guard` keeps them mapped, and
    // their alignment was checked. Guest memory is only accessed through raw pointers and atomics: no reference aliases.
    let found = unsafe { cmpxchg16b(pointer, expected, replacement, Ordering::SeqCst, Ordering::SeqCst) };
    let equal = found == expected;
    if !equal {
        step.registers.rax = found as u64;
        step.registers.rdx = (found >> 64) as u64;
    }
    step.set_flags(FLAG_ZERO, if equal { FLAG_ZERO } else { 0 });
    Ok(())
}

fn pair(high: u64, low: u64) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}
