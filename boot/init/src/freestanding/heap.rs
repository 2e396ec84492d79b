// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The heap: blocks of powers of two, each size with its list of free blocks, cut from an arena that lies in the
//! program's zeroed memory, so that small lives make no system call for it. Large blocks are mappings of their own and
//! go back to the kernel.
//!
//! PID 1 has one thread. A child that shares its memory (see `system_call::run_in_child`) runs only while PID 1 waits. It
//! ends in `execve`, which frees nothing, so what it allocates comes from a place of its own that each child uses anew:
//! otherwise every health check would cost memory for ever.
// Reason for unsafe code: an allocator hands out raw memory.
#![allow(unsafe_code)]

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::null_mut;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// Smallest block, and what every block is aligned to.
const SMALLEST: usize = 16;
/// From this size on a block is a mapping.
const LARGE: usize = 32 << 10;
/// Free lists: 16 bytes to 16 KiB.
const CLASSES: usize = (LARGE / SMALLEST).trailing_zeros() as usize;
/// Zeroed memory of the program; the part that is never touched costs nothing.
const ARENA: usize = 128 << 10;
/// What children allocate from. One that needs more, for an environment of mebibytes, takes the rest from the heap.
const CHILD_ARENA: usize = 1 << 20;
/// What is mapped when the arena is used up.
const CHUNK: usize = 256 << 10;

#[repr(C, align(16))]
struct Arena(UnsafeCell<[u8; ARENA]>);

struct Heap(UnsafeCell<State>);

struct State {
    /// Heads of the lists of free blocks; a free block holds the pointer to the next one.
    free: [*mut *mut u8; CLASSES],
    next: *mut u8,
    left: usize,
    /// The children's arena, once there was a child.
    child_arena: *mut u8,
    /// How much of it the child has used; `None` while no child runs.
    child_used: Option<usize>,
}

// SAFETY: one thread.
unsafe impl Sync for Arena {}
// SAFETY: one thread.
unsafe impl Sync for Heap {}

static MEMORY: Arena = Arena(UnsafeCell::new([0; ARENA]));

#[global_allocator]
static HEAP: Heap = Heap(UnsafeCell::new(State {
    free: [null_mut(); CLASSES],
    next: MEMORY.0.get().cast(),
    left: ARENA,
    child_arena: null_mut(),
    child_used: None,
}));

/// From here on a child allocates. What an earlier one has left is gone.
pub(super) fn begin_child() {
    // SAFETY: one thread, and no reference to the state outlives a call.
    let state = unsafe { &mut *HEAP.0.get() };
    if state.child_arena.is_null() {
        state.child_arena = map(CHILD_ARENA);
    }
    state.child_used = (!state.child_arena.is_null()).then_some(0);
}

/// The child has executed a program or ended. What it left can be read until the next one.
pub(super) fn end_child() {
    // SAFETY: as above.
    unsafe { (*HEAP.0.get()).child_used = None };
}

impl State {
    /// A block of the running child's.
    fn alloc_for_child(&mut self, layout: Layout) -> Option<*mut u8> {
        let used = self.child_used?;
        let size = block_size(layout)?;
        self.child_used = Some(used.checked_add(size).filter(|&after| after <= CHILD_ARENA)?);
        // SAFETY: the arena has at least `used` bytes and a block more.
        Some(unsafe { self.child_arena.add(used) })
    }

    fn is_childs(&self, block: *mut u8) -> bool {
        (block as usize).wrapping_sub(self.child_arena as usize) < CHILD_ARENA && !self.child_arena.is_null()
    }
}

/// Size of the block that `layout` gets, or `None` for an alignment that no block has.
fn block_size(layout: Layout) -> Option<usize> {
    (layout.align() <= SMALLEST).then(|| layout.size().max(SMALLEST).next_power_of_two())
}

fn class_of(size: usize) -> usize {
    (size / SMALLEST).trailing_zeros() as usize
}

/// A fresh zeroed mapping of `size` bytes, or null.
fn map(size: usize) -> *mut u8 {
    // SAFETY: a new private mapping at an address of the kernel's choice touches nothing that exists.
    unsafe { mmap_anonymous(null_mut(), size, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE) }
        .map_or(null_mut(), <*mut core::ffi::c_void>::cast)
}

// SAFETY: blocks are disjoint parts of the arena, of a chunk, or mappings of their own, as large as `block_size` says
// and aligned to `SMALLEST`; a block is on a free list or handed out, never both.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(size) = block_size(layout) else { return null_mut() };
        // SAFETY: one thread, and no reference to the state outlives a call.
        let state = unsafe { &mut *self.0.get() };
        if state.child_used.is_some()
            && let Some(block) = state.alloc_for_child(layout)
        {
            return block;
        }
        if size >= LARGE {
            return map(size);
        }
        let head = &mut state.free[class_of(size)];
        if !head.is_null() {
            let block = *head;
            // SAFETY: a block on the list holds the pointer to the next.
            *head = unsafe { *block }.cast();
            return block.cast();
        }
        if state.left < size {
            let chunk = map(CHUNK);
            if chunk.is_null() {
                return null_mut();
            }
            (state.next, state.left) = (chunk, CHUNK);
        }
        let block = state.next;
        // SAFETY: `left` says that so many bytes follow.
        state.next = unsafe { block.add(size) };
        state.left -= size;
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(size) = block_size(layout) else { return };
        // SAFETY: one thread.
        if unsafe { &*self.0.get() }.is_childs(block) {
            return;
        }
        if size >= LARGE {
            // SAFETY: a large block is one whole mapping. An error cannot be told to anybody and loses only memory.
            let _ = unsafe { munmap(block.cast(), size) };
            return;
        }
        // SAFETY: one thread; the block is the caller's to give back and large enough for a pointer.
        unsafe {
            let head = &mut (*self.0.get()).free[class_of(size)];
            *block.cast::<*mut u8>() = (*head).cast();
            *head = block.cast();
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the new size is a valid one for this alignment.
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
