// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the guest starts from: kernel, initramfs, command line, tables, and the registers at the entry.
#![forbid(unsafe_code)]
