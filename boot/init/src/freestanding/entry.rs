// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The entry point of the program. The kernel enters with `argc`, `argv` and `envp` on the stack
//! (System V ABI, AMD64 supplement, "Initial Stack and Register State").
// Reason for unsafe code: the initial stack is raw memory.
#![allow(unsafe_code)]

use alloc::ffi::CString;
use alloc::vec::Vec;
use core::arch::global_asm;
use core::ffi::{CStr, c_char};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};

global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {enter}",
    "ud2",
    enter = sym enter,
);

/// The environment: pointers to strings, the last one null.
static ENVIRONMENT: AtomicPtr<*const c_char> = AtomicPtr::new(null_mut());

/// # Safety
/// `stack` is the stack pointer that the kernel entered with.
unsafe extern "C" fn enter(stack: *mut usize) -> ! {
    // SAFETY: the stack starts with `argc`, then that many pointers to strings that live as long as
    // the process, a null pointer, and the environment.
    let arguments: Vec<&'static CStr> = unsafe {
        let count = *stack;
        ENVIRONMENT.store(stack.add(count + 2).cast(), Ordering::Relaxed);
        (1..=count).map(|index| CStr::from_ptr((*stack.add(index)) as *const c_char)).collect()
    };
    crate::main(&arguments)
}

/// Copies the environment that this process was executed with.
pub(crate) fn environment() -> Vec<CString> {
    let mut next = ENVIRONMENT.load(Ordering::Relaxed);
    let mut strings = Vec::new();
    // SAFETY: `enter` stored the address of an array of pointers to strings with a null pointer at
    // its end, which lives as long as the process.
    unsafe {
        while !(*next).is_null() {
            strings.push(CStr::from_ptr(*next).into());
            next = next.add(1);
        }
    }
    strings
}
