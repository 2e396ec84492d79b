// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The machine: one container image as one microVM in one process. The binary `coracle` is a few lines around this.

pub mod cli;
pub mod config;
pub mod control;
pub mod host;
pub mod kvm;
pub mod machine;
