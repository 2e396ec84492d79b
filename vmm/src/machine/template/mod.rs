// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A template: a machine that was saved while PID 1 waited for its run specification, from which machines of the same [`Shape`] start.
//! `vmm/docs/templates.md` has its files. [`shape`] is what they have in common, [`make`] makes one, [`document`] is its state as a
//! file.

mod document;
mod make;
mod shape;

pub(crate) use document::{OpenError, OpenTemplate, TemplateDocument, TemplateFiles, open};
pub(crate) use make::Preparation;
pub(crate) use shape::{ImageShape, Shape};

/// Files of the directory.
pub(crate) const STATE_FILE: &str = "state";
pub(crate) const MEMORY_FILE: &str = "memory";
pub(crate) const SCRATCH_FILE: &str = "scratch";
