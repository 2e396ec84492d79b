// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Commands for people who work on coracle.

fn main() {}
