// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The heap: blocks of powers of two with one free list per size, cut from an arena in the
//! program's zeroed memory, so that a small run needs no system call for it. Large blocks are
//! mappings of their own and are returned to the kernel.
//!
//! PID 1 has one thread, and its children (`system_call::fork`) work on a copy of this memory: a
//! child that is killed while it allocates leaves no trace here.
// Reason for unsafe code: an allocator hands out raw memory.
#![allow(unsafe_code)]

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::null_mut;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// Smallest block, and the alignment of every block.
const MIN_BLOCK_SIZE: usize = 16;
/// Blocks of this size and above are mappings.
const MIN_MAPPING_SIZE: usize = 32 << 10;
/// Free lists: 16 bytes to 16 KiB.
const CLASSES: usize = (MIN_MAPPING_SIZE / MIN_BLOCK_SIZE).trailing_zeros() as usize;
/// Zeroed memory of the program; untouched pages cost nothing.
const ARENA_SIZE: usize = 128 << 10;
/// Size of a further arena, mapped when the first one is used up.
const NEXT_ARENA_SIZE: usize = 256 << 10;

#[repr(C, align(16))]
struct Arena(UnsafeCell<[u8; ARENA_SIZE]>);

struct Heap(UnsafeCell<State>);

struct State {
    /// Heads of the free lists; a free block holds the pointer to the next one.
    free: [*mut *mut u8; CLASSES],
    next: *mut u8,
    left: usize,
}

// SAFETY: one thread.
unsafe impl Sync for Arena {}
// SAFETY: one thread.
unsafe impl Sync for Heap {}

static MEMORY: Arena = Arena(UnsafeCell::new([0; ARENA_SIZE]));

#[global_allocator]
static HEAP: Heap =
    Heap(UnsafeCell::new(State { free: [null_mut(); CLASSES], next: MEMORY.0.get().cast(), left: ARENA_SIZE }));

/// Size of the block for `layout`, or `None` for an alignment above that of blocks.
fn block_size(layout: Layout) -> Option<usize> {
    (layout.align() <= MIN_BLOCK_SIZE).then(|| layout.size().max(MIN_BLOCK_SIZE).next_power_of_two())
}

fn class_of(size: usize) -> usize {
    (size / MIN_BLOCK_SIZE).trailing_zeros() as usize
}

/// A fresh zeroed mapping of `size` bytes, or null.
fn map(size: usize) -> *mut u8 {
    // SAFETY: a new private mapping at an address of the kernel's choice touches nothing that
    // exists.
    unsafe { mmap_anonymous(null_mut(), size, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE) }
        .map_or(null_mut(), <*mut core::ffi::c_void>::cast)
}

// SAFETY: blocks are disjoint parts of an arena or mappings of their own, of the size that
// `block_size` returns and aligned to `MIN_BLOCK_SIZE`; a block is on a free list or handed out,
// never both.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(size) = block_size(layout) else { return null_mut() };
        // SAFETY: one thread, and no reference to the state outlives a call.
        let state = unsafe { &mut *self.0.get() };
        if size >= MIN_MAPPING_SIZE {
            return map(size);
        }
        let head = &mut state.free[class_of(size)];
        if !head.is_null() {
            let block = *head;
            // SAFETY: a block on the list holds the pointer to the next one.
            *head = unsafe { *block }.cast();
            return block.cast();
        }
        if state.left < size {
            let arena = map(NEXT_ARENA_SIZE);
            if arena.is_null() {
                return null_mut();
            }
            (state.next, state.left) = (arena, NEXT_ARENA_SIZE);
        }
        let block = state.next;
        // SAFETY: at least `left` bytes follow.
        state.next = unsafe { block.add(size) };
        state.left -= size;
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(size) = block_size(layout) else { return };
        if size >= MIN_MAPPING_SIZE {
            // SAFETY: a large block is one whole mapping. An error loses only memory.
            let _ = unsafe { munmap(block.cast(), size) };
            return;
        }
        // SAFETY: one thread; the caller owns the block, and it is large enough for a pointer.
        unsafe {
            let head = &mut (*self.0.get()).free[class_of(size)];
            *block.cast::<*mut u8>() = (*head).cast();
            *head = block.cast();
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller guarantees a valid size for this alignment.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        if block_size(layout) == block_size(new_layout) {
            return block;
        }
        // SAFETY: the new block is disjoint, and both hold the smaller of the two sizes.
        unsafe {
            let new_block = self.alloc(new_layout);
            if !new_block.is_null() {
                new_block.copy_from_nonoverlapping(block, layout.size().min(new_size));
                self.dealloc(block, layout);
            }
            new_block
        }
    }
}
