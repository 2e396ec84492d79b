// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What `main` wants of the vCPU threads: to run, to be held, to stop. They look each time they leave `KVM_RUN`, which a
//! kick makes them do.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What is wanted, in the atomic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Wanted {
    Run,
    Hold,
    Stop,
}

/// Shared by all vCPU threads of a machine and `main`.
#[derive(Clone, Debug, Default)]
pub struct RunControl(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// A [`Wanted`]; changed under the lock, read without.
    wanted: AtomicU8,
    /// Threads that may be in the guest.
    inside: Mutex<usize>,
    changed: Condvar,
}

/// A thread that may be in the guest, for as long as this lives.
#[derive(Debug)]
pub struct Inside(RunControl);

impl RunControl {
    /// Another thread will run a vCPU. Called before it is started, so that a hold waits for it.
    #[must_use]
    pub fn enter(&self) -> Inside {
        *self.lock() += 1;
        Inside(self.clone())
    }

    /// What a vCPU thread is to do: one load where it is to run.
    pub(super) fn wanted(&self) -> Wanted {
        match self.0.wanted.load(Ordering::SeqCst) {
            0 => Wanted::Run,
            1 => Wanted::Hold,
            _ => Wanted::Stop,
        }
    }

    /// Waits, outside the guest, as long as a hold is wanted.
    pub(super) fn wait(&self) {
        let mut inside = self.lock();
        *inside -= 1;
        self.0.changed.notify_all();
        while self.wanted() == Wanted::Hold {
            inside = self.0.changed.wait(inside).unwrap_or_else(PoisonError::into_inner);
        }
        *inside += 1;
    }

    /// Wants every thread held. Those in the guest have to be kicked; then [`wait_until_held`](Self::wait_until_held).
    pub fn hold(&self) {
        self.want(Wanted::Hold);
    }

    /// Waits until no thread is in the guest.
    pub fn wait_until_held(&self) {
        let mut inside = self.lock();
        while *inside > 0 {
            inside = self.0.changed.wait(inside).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends a hold.
    pub fn release(&self) {
        self.want(Wanted::Run);
    }

    /// Wants every thread to end, held or not. Those in the guest have to be kicked. There is no way back.
    pub fn stop(&self) {
        self.want(Wanted::Stop);
    }

    fn want(&self, wanted: Wanted) {
        let _inside = self.lock();
        if self.wanted() != Wanted::Stop {
            self.0.wanted.store(wanted as u8, Ordering::SeqCst);
        }
        self.0.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.0.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        *self.0.lock() -= 1;
        self.0.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;

    /// Stands for a vCPU thread without a guest: counts its turns.
    fn turn_until_stopped(control: &RunControl, inside: Inside, turns: &AtomicU64) {
        let _inside = inside;
        loop {
            match control.wanted() {
                Wanted::Run => drop(turns.fetch_add(1, Ordering::SeqCst)),
                Wanted::Hold => control.wait(),
                Wanted::Stop => return,
            }
        }
    }

    #[test]
    fn held_threads_do_nothing_until_they_are_released() {
        let (control, turns) = (RunControl::default(), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                let inside = control.enter();
                scope.spawn(|| turn_until_stopped(&control, inside, &turns));
            }
            for _ in 0..50 {
                control.hold();
                control.wait_until_held();
                let before = turns.load(Ordering::SeqCst);
                std::thread::yield_now();
                assert_eq!(turns.load(Ordering::SeqCst), before);
                control.release();
                while turns.load(Ordering::SeqCst) == before {
                    std::thread::yield_now();
                }
            }
            control.stop();
        });
    }

    #[test]
    fn a_held_thread_can_be_stopped_and_one_that_ended_is_not_waited_for() {
        let (control, turns) = (RunControl::default(), AtomicU64::new(0));
        std::thread::scope(|scope| {
            drop(control.enter());
            let inside = control.enter();
            scope.spawn(|| turn_until_stopped(&control, inside, &turns));
            control.hold();
            control.wait_until_held();
            control.stop();
            control.release();
            assert_eq!(control.wanted(), Wanted::Stop);
        });
    }
}
