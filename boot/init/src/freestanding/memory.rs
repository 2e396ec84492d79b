// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The memory functions that compiled Rust calls by name. String instructions are the smallest
//! form, and fast in user mode on every host.
// Reason for unsafe code: the functions take raw pointers.
#![allow(unsafe_code)]

use core::arch::asm;

/// # Safety
/// As in C: `length` bytes at `source` can be read, at `destination` written, and they do not
/// overlap.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(destination: *mut u8, source: *const u8, length: usize) -> *mut u8 {
    // SAFETY: guaranteed by the caller; the direction flag is clear by the calling convention.
    unsafe {
        asm!("rep movsb", inout("rcx") length => _, inout("rdi") destination => _, inout("rsi") source => _,
            options(nostack, preserves_flags));
    }
    destination
}

/// # Safety
/// As in C: `length` bytes at `source` can be read, at `destination` written.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(destination: *mut u8, source: *const u8, length: usize) -> *mut u8 {
    if (destination as usize).wrapping_sub(source as usize) >= length {
        // SAFETY: guaranteed by the caller; copying upwards reads each byte before it is
        // overwritten.
        return unsafe { memcpy(destination, source, length) };
    }
    // SAFETY: as above, downwards; the direction flag is clear again afterwards.
    unsafe {
        asm!("std", "rep movsb", "cld", inout("rcx") length => _,
            inout("rdi") destination.add(length).wrapping_sub(1) => _,
            inout("rsi") source.add(length).wrapping_sub(1) => _, options(nostack));
    }
    destination
}

/// # Safety
/// As in C: `length` bytes at `destination` can be written.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(destination: *mut u8, value: i32, length: usize) -> *mut u8 {
    // SAFETY: guaranteed by the caller; the direction flag is clear by the calling convention.
    unsafe {
        asm!("rep stosb", inout("rcx") length => _, inout("rdi") destination => _, in("al") value as u8,
            options(nostack, preserves_flags));
    }
    destination
}

/// # Safety
/// As in C: `length` bytes can be read at both.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, length: usize) -> i32 {
    let mut index = 0;
    while index < length {
        // SAFETY: guaranteed by the caller. Volatile, or the compiler turns this loop into a call
        // of memcmp.
        let (a, b) = unsafe { (left.add(index).read_volatile(), right.add(index).read_volatile()) };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
        index += 1;
    }
    0
}

/// # Safety
/// As [`memcmp`].
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, length: usize) -> i32 {
    // SAFETY: guaranteed by the caller.
    unsafe { memcmp(left, right, length) }
}

/// # Safety
/// As in C: `string` points to a zero-terminated string.
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(string: *const u8) -> usize {
    let mut length = 0;
    // SAFETY: guaranteed by the caller. Volatile, or the compiler turns this loop into a call of
    // strlen.
    while unsafe { string.add(length).read_volatile() } != 0 {
        length += 1;
    }
    length
}
