// SPDX-License-Identifier: Apache-2.0 OR MIT
//! PID 1 of the guest.
#![no_std]
#![no_main]
#![allow(unsafe_code)]
