// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Guest memory that is mapped from the file of a snapshot and cannot be read any more: another process has made the file shorter, or
//! its disk fails. An access of this process to such a page raises SIGBUS. The page becomes an empty one, so that the thread goes on in
//! the usual order, and `main`, which is woken, ends the machine. Nothing here allocates or locks: [`on_signal`] runs in a signal
//! handler, on any thread.
//!
//! The kernel's accesses on behalf of a vCPU or of a system call fail with EFAULT instead; [`is_cut`] explains those.
#![allow(unsafe_code, reason = "reads and changes what the kernel passes to a signal handler, and maps memory there")]

use super::forbidden_call;
use boot::GuestMemory;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _};

/// What the end of a run says.
pub(crate) const LINE: &str =
    "the memory of the snapshot is lost: another process made its file shorter, or the file cannot be read";
const PAGE_SIZE: usize = 4096;
/// Below and above the hole below 4 GiB.
const MAX_REGIONS: usize = 2;

/// First address and address after the last one, 0 if there is none. Set before the machine runs.
static REGIONS: [[AtomicUsize; 2]; MAX_REGIONS] = [const { [const { AtomicUsize::new(0) }; 2] }; MAX_REGIONS];
static IS_LOST: AtomicBool = AtomicBool::new(false);
/// An eventfd, open as long as the process runs.
static WAKE: AtomicI32 = AtomicI32::new(-1);

/// The memory of the guest is mapped from a file.
pub(super) fn watch(memory: &GuestMemory) {
    for (region, [start, end]) in memory.iter().zip(&REGIONS) {
        let address = region.as_ptr() as usize;
        end.store(address + region.size(), Ordering::SeqCst);
        start.store(address, Ordering::SeqCst);
    }
}

/// `descriptor`, an eventfd that stays open, is written to when memory is lost.
pub(crate) fn wake(descriptor: RawFd) {
    WAKE.store(descriptor, Ordering::SeqCst);
    if is_lost() {
        forbidden_call::write_event(descriptor);
    }
}

/// Whether this process has read a page that is lost.
#[must_use]
pub(crate) fn is_lost() -> bool {
    IS_LOST.load(Ordering::SeqCst)
}

/// Fails if it has.
///
/// # Errors
/// What was read is not what the guest wrote.
pub(crate) fn check() -> io::Result<()> {
    if is_lost() { Err(io::Error::other(LINE)) } else { Ok(()) }
}

/// Whether a file that the memory is mapped from is shorter than what is mapped.
#[must_use]
pub(crate) fn is_cut(memory: &GuestMemory) -> bool {
    memory.iter().any(|region| {
        let Some(file) = region.file_offset() else { return false };
        file.file().metadata().is_ok_and(|metadata| metadata.len() < file.start() + region.len())
    })
}

/// Handles a SIGBUS; returns false if another process sent it and this thread passes it on. Async-signal-safe.
///
/// # Safety
/// The arguments are those of a handler with `SA_SIGINFO`.
pub(super) unsafe fn on_signal(info: *mut libc::siginfo_t, context: *mut libc::c_void) -> bool {
    // SAFETY: the caller's promise.
    let code = unsafe { (*info).si_code };
    // Those that the kernel sends for a fault are positive.
    if code <= 0 {
        return !forbidden_call::passes_signals_on();
    }
    // SAFETY: a fault has an address.
    let address = unsafe { (*info).si_addr() } as usize;
    let is_guests =
        |[start, end]: &[AtomicUsize; 2]| (start.load(Ordering::SeqCst)..end.load(Ordering::SeqCst)).contains(&address);
    if !REGIONS.iter().any(is_guests) || !replace_page(address) {
        // A fault of this process itself: made again with the signal blocked, it is the end.
        // SAFETY: the context is a `ucontext_t`, and its mask an initialised set.
        unsafe { libc::sigaddset(&raw mut (*context.cast::<libc::ucontext_t>()).uc_sigmask, libc::SIGBUS) };
        return true;
    }
    if !IS_LOST.swap(true, Ordering::SeqCst) {
        forbidden_call::write_event(WAKE.load(Ordering::SeqCst));
    }
    true
}

/// Maps an empty page in the place of the one at `address`, which is guest memory.
fn replace_page(address: usize) -> bool {
    let page = std::ptr::without_provenance_mut(address & !(PAGE_SIZE - 1));
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
    // SAFETY: the page is within a mapping of guest memory, which holds no value of this program and stays mapped as long as the
    // process runs; other threads see it change as if the guest had written it.
    let mapped = unsafe { libc::mmap(page, PAGE_SIZE, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    mapped != libc::MAP_FAILED
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::memory::map_snapshot;
    use crate::host::signals::Signals;
    use std::os::unix::fs::FileExt as _;
    use vm_memory::{Bytes as _, GuestAddress};
    use vmm_sys_util::eventfd::EventFd;

    const SIZE: u64 = 1 << 20;

    #[test]
    fn pages_of_a_cut_file_become_empty_and_wake_the_watcher() {
        let _signals = Signals::block().unwrap();
        let file = tempfile::tempfile().unwrap();
        file.set_len(SIZE).unwrap();
        file.write_all_at(b"kept", 0).unwrap();
        file.write_all_at(b"lost", SIZE / 2).unwrap();
        let memory = map_snapshot(SIZE, file.try_clone().unwrap()).unwrap();
        let event: &'static EventFd = Box::leak(Box::new(EventFd::new(libc::EFD_NONBLOCK).unwrap()));
        wake(std::os::fd::AsRawFd::as_raw_fd(event));
        let read = |address: u64| memory.read_obj::<[u8; 4]>(GuestAddress(address)).unwrap();
        assert_eq!((&read(0), &read(SIZE / 2), is_cut(&memory), is_lost()), (b"kept", b"lost", false, false));
        check().unwrap();
        file.set_len(SIZE / 4).unwrap();
        assert!(is_cut(&memory));
        assert_eq!((&read(0), read(SIZE / 2), read(SIZE - 4)), (b"kept", [0; 4], [0; 4]));
        assert!(is_lost() && check().is_err());
        assert_eq!(event.read().unwrap(), 1);
    }
}
