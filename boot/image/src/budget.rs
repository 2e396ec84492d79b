// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The memory that one image may make this process keep: a number of bytes, which every table that
//! grows with an image charges *before* it grows. A limit on the number of things would not do: a
//! few kilobytes of a hostile archive can describe things of any size.

use std::sync::atomic::{AtomicU64, Ordering};

/// What an allocation costs besides its bytes, rounding included.
const ALLOCATION: u64 = 32;

/// Shared by the threads of a conversion.
#[derive(Debug)]
pub(crate) struct Budget {
    left: AtomicU64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the image needs more than {} MiB of memory", crate::limits::MAX_MEMORY >> 20)]
pub struct OverBudget;

impl Budget {
    pub(crate) fn new(bytes: u64) -> Self {
        Self { left: AtomicU64::new(bytes) }
    }

    pub(crate) fn charge(&self, bytes: u64) -> Result<(), OverBudget> {
        let charged = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
        charged.map(drop).map_err(|_| OverBudget)
    }

    /// Gives back what was charged for something that is not kept.
    pub(crate) fn release(&self, bytes: u64) {
        self.left.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A budget of its own for one of `count` that run at the same time, of what is left now.
    pub(crate) fn share(&self, count: usize) -> Self {
        Self::new(self.left.load(Ordering::Relaxed) / count as u64)
    }

    /// Charges an allocation of `length` bytes of its own.
    pub(crate) fn charge_allocation(&self, length: usize) -> Result<(), OverBudget> {
        self.charge(length as u64 + ALLOCATION)
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(crate::limits::MAX_MEMORY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charge_above_the_rest_changes_nothing() {
        let budget = Budget::new(100);
        budget.charge(60).unwrap();
        assert_eq!(budget.charge(41), Err(OverBudget));
        budget.charge(40).unwrap();
        assert_eq!(budget.charge_allocation(0), Err(OverBudget));
    }
}
