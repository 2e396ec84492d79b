// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The binary `coracle`.

fn main() {}
