// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What `main` requests of all vCPU threads: to run, to pause, to save their vCPUs, to stop. A thread
//! reads it each time it leaves `KVM_RUN`, which a kick forces.

use crate::saved::{SavedVcpu, StateError};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The request, as stored in the atomic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum RunRequest {
    Run,
    Pause,
    /// Paused, after it has saved its vCPU.
    Save,
    Stop,
}

/// Shared by `main` and all vCPU threads of a machine.
#[derive(Clone, Debug, Default)]
pub struct RunControl(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// A [`RunRequest`]; written under the lock, read without it.
    request: AtomicU8,
    /// Number of threads that may be in the guest.
    active: Mutex<usize>,
    changed: Condvar,
    /// Locked alone, or after `active`.
    round: Mutex<SaveRound>,
}

/// What the threads have saved for one request.
#[derive(Debug, Default)]
struct SaveRound {
    number: u64,
    /// Each with the number of its vCPU.
    saved: Vec<(u8, Result<SavedVcpu, StateError>)>,
}

/// Counts a thread as one that may be in the guest, until it is dropped.
#[derive(Debug)]
pub struct VcpuSlot(RunControl);

impl RunControl {
    /// Registers a thread that will run a vCPU. Called before the thread starts, so that a pause
    /// waits for it.
    #[must_use]
    pub fn register(&self) -> VcpuSlot {
        *self.lock() += 1;
        VcpuSlot(self.clone())
    }

    /// The current request: one atomic load.
    pub(super) fn request(&self) -> RunRequest {
        match self.0.request.load(Ordering::SeqCst) {
            0 => RunRequest::Run,
            1 => RunRequest::Pause,
            2 => RunRequest::Save,
            _ => RunRequest::Stop,
        }
    }

    /// Blocks a vCPU thread, outside the guest, while a pause is requested.
    pub(super) fn wait_while_paused(&self) {
        self.wait_while(self.lock(), || self.request() == RunRequest::Pause);
    }

    /// Delivers what a vCPU thread has saved, and blocks it until there is another request.
    pub(super) fn deliver(&self, vcpu: u8, saved: Result<SavedVcpu, StateError>) {
        let active = self.lock();
        let mut round = self.round();
        round.saved.push((vcpu, saved));
        let number = round.number;
        drop(round);
        // The next request may come before this thread has seen the end of this one.
        self.wait_while(active, || self.request() == RunRequest::Save && self.round().number == number);
    }

    fn wait_while(&self, mut active: MutexGuard<'_, usize>, waits: impl Fn() -> bool) {
        *active -= 1;
        self.0.changed.notify_all();
        while waits() {
            active = self.0.changed.wait(active).unwrap_or_else(PoisonError::into_inner);
        }
        *active += 1;
    }

    /// Has each of so many paused threads save its vCPU, and returns the states in the order of the vCPUs. `None` if one has
    /// not done so after `limit`. The threads stay paused.
    ///
    /// # Errors
    /// A vCPU cannot be saved.
    pub fn save(&self, threads: usize, limit: Duration) -> Option<Result<Vec<SavedVcpu>, StateError>> {
        {
            let mut round = self.round();
            round.number += 1;
            round.saved.clear();
        }
        self.set(RunRequest::Save);
        let is_missing = |_: &mut usize| self.round().saved.len() < threads;
        drop(self.0.changed.wait_timeout_while(self.lock(), limit, is_missing));
        self.set(RunRequest::Pause);
        let mut saved = std::mem::take(&mut self.round().saved);
        saved.sort_by_key(|(vcpu, _)| *vcpu);
        (saved.len() == threads).then(|| saved.into_iter().map(|(_, saved)| saved).collect())
    }

    fn round(&self) -> MutexGuard<'_, SaveRound> {
        self.0.round.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests a pause. The caller kicks the threads, then calls
    /// [`wait_until_paused`](Self::wait_until_paused).
    pub fn pause(&self) {
        self.set(RunRequest::Pause);
    }

    /// Blocks until no thread is in the guest, at most for `limit`: a thread may wait for a device
    /// whose backend hangs. True if no thread is in the guest. Threads that have ended after
    /// [`stop`](Self::stop) do not count.
    #[must_use]
    pub fn wait_until_paused(&self, limit: Duration) -> bool {
        let waited = self.0.changed.wait_timeout_while(self.lock(), limit, |active| *active > 0);
        *waited.unwrap_or_else(PoisonError::into_inner).0 == 0
    }

    pub fn resume(&self) {
        self.set(RunRequest::Run);
    }

    /// Requests that every thread ends, paused or not. The caller kicks the threads. Final: later
    /// requests are ignored.
    pub fn stop(&self) {
        self.set(RunRequest::Stop);
    }

    fn set(&self, request: RunRequest) {
        let _active = self.lock();
        if self.request() != RunRequest::Stop {
            self.0.request.store(request as u8, Ordering::SeqCst);
        }
        self.0.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.0.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for VcpuSlot {
    fn drop(&mut self) {
        *self.0.lock() -= 1;
        self.0.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    /// A vCPU thread without a guest: counts its turns.
    fn turn_until_stopped(control: &RunControl, slot: VcpuSlot, turns: &AtomicU64) {
        let _slot = slot;
        loop {
            match control.request() {
                RunRequest::Run => drop(turns.fetch_add(1, Ordering::SeqCst)),
                RunRequest::Pause => control.wait_while_paused(),
                RunRequest::Save => control.deliver(0, Err(StateError::Kind)),
                RunRequest::Stop => return,
            }
        }
    }

    #[test]
    fn paused_threads_make_no_turn_until_they_are_resumed() {
        let (control, turns) = (RunControl::default(), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                let slot = control.register();
                scope.spawn(|| turn_until_stopped(&control, slot, &turns));
            }
            for _ in 0..50 {
                control.pause();
                assert!(control.wait_until_paused(Duration::MAX));
                let before = turns.load(Ordering::SeqCst);
                std::thread::yield_now();
                assert_eq!(turns.load(Ordering::SeqCst), before);
                control.resume();
                while turns.load(Ordering::SeqCst) == before {
                    std::thread::yield_now();
                }
            }
            control.stop();
        });
    }

    #[test]
    fn paused_thread_can_be_stopped_and_ended_one_is_not_awaited() {
        let (control, turns) = (RunControl::default(), AtomicU64::new(0));
        std::thread::scope(|scope| {
            drop(control.register());
            let slot = control.register();
            scope.spawn(|| turn_until_stopped(&control, slot, &turns));
            control.pause();
            assert!(control.wait_until_paused(Duration::MAX));
            control.stop();
            control.resume();
            assert_eq!(control.request(), RunRequest::Stop);
        });
    }

    #[test]
    fn paused_threads_deliver_their_states_and_stay_paused() {
        let (control, turns) = (RunControl::default(), AtomicU64::new(0));
        std::thread::scope(|scope| {
            let slot = control.register();
            scope.spawn(|| turn_until_stopped(&control, slot, &turns));
            control.pause();
            assert!(control.wait_until_paused(Duration::MAX));
            let before = turns.load(Ordering::SeqCst);
            for _ in 0..1000 {
                assert!(matches!(control.save(1, Duration::from_secs(60)), Some(Err(StateError::Kind))));
            }
            assert!(control.save(2, Duration::from_millis(1)).is_none());
            assert!(control.wait_until_paused(Duration::MAX));
            assert_eq!(turns.load(Ordering::SeqCst), before);
            control.stop();
        });
    }

    #[test]
    fn wait_for_a_busy_thread_ends_at_its_limit() {
        let control = RunControl::default();
        let slot = control.register();
        control.stop();
        assert!(!control.wait_until_paused(Duration::from_millis(1)));
        drop(slot);
        assert!(control.wait_until_paused(Duration::ZERO));
    }
}
