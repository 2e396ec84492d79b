// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The C library's allocator, for a process whose threads have few system calls. Used by `main`, before it starts threads.
#![allow(unsafe_code, reason = "mallopt has no safe wrapper")]

/// All threads allocate from the program's heap, which grows by `brk` and `mmap`. Of a heap for each thread the allocator changes the
/// protection as it grows, and counts processors and reads settings of the host to decide about it. Threads keep small blocks of their
/// own, and a running machine allocates little.
pub(crate) fn use_one_heap() {
    // SAFETY: the call takes no pointers. It fails for unknown options only.
    #[cfg(target_env = "gnu")]
    let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}
