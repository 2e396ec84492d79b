// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where a part of a device is while there is no worker, if it must survive a reset: a backend with
//! frames that are half sent, limits that the driver has used up. A worker takes it when the driver
//! activates the device, and its drop at a reset puts it back. The lock is held for these two moves
//! only.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Debug)]
pub(crate) struct Slot<T>(Arc<Mutex<Option<T>>>);

impl<T> Slot<T> {
    pub(crate) fn new(content: T) -> Self {
        Self(Arc::new(Mutex::new(Some(content))))
    }

    /// The content. `None` if the worker before still has it.
    pub(crate) fn take(&self) -> Option<Borrowed<T>> {
        let content = self.0.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(Borrowed { content: Some(content), slot: Self(Arc::clone(&self.0)) })
    }
}

/// Goes back to its slot when it is dropped.
#[derive(Debug)]
pub(crate) struct Borrowed<T> {
    /// Always there until the drop.
    content: Option<T>,
    slot: Slot<T>,
}

impl<T> Deref for Borrowed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.content.as_ref().expect("the content is there until the drop")
    }
}

impl<T> DerefMut for Borrowed<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.content.as_mut().expect("the content is there until the drop")
    }
}

impl<T> Drop for Borrowed<T> {
    fn drop(&mut self) {
        *self.slot.0.lock().unwrap_or_else(PoisonError::into_inner) = self.content.take();
    }
}
