// SPDX-License-Identifier: Apache-2.0 OR MIT
//! End-to-end proof: starts the binary, like a user.
