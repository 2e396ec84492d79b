// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the host lends to a run: memory, signals, the terminal, files.

pub mod memory;
pub mod signals;
pub mod terminal;
