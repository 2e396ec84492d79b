// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where a backend is while the device has no worker. A worker takes it when the driver activates
//! the device, and its drop at a reset puts it back, with frames that are half received or half
//! sent. The lock is held for these two moves only.

use super::backend::Backend;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Clone, Debug)]
pub(super) struct Slot(Arc<Mutex<Option<Backend>>>);

impl Slot {
    pub(super) fn new(backend: Backend) -> Self {
        Self(Arc::new(Mutex::new(Some(backend))))
    }

    /// The backend. `None` if the worker before still has it.
    pub(super) fn take(&self) -> Option<Borrowed> {
        let backend = self.0.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(Borrowed { backend: Some(backend), slot: self.clone() })
    }
}

/// A backend that goes back to its slot.
#[derive(Debug)]
pub(super) struct Borrowed {
    /// Always there until the drop.
    backend: Option<Backend>,
    slot: Slot,
}

impl Deref for Borrowed {
    type Target = Backend;

    fn deref(&self) -> &Backend {
        self.backend.as_ref().expect("the backend is there until the drop")
    }
}

impl DerefMut for Borrowed {
    fn deref_mut(&mut self) -> &mut Backend {
        self.backend.as_mut().expect("the backend is there until the drop")
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        *self.slot.0.lock().unwrap_or_else(PoisonError::into_inner) = self.backend.take();
    }
}
