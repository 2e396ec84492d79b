// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What makes a machine distinct from the one whose snapshot it was restored from. PID 1 takes it on
//! before a process of the workload runs again.

use crate::run_spec::{Host, Interface, Resolver};
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Bytes of [`Identity::entropy`].
pub const ENTROPY_BYTES: usize = 64;

/// The identity of a restored machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Random bytes that no other machine gets, [`ENTROPY_BYTES`]: credited to the kernel, whose
    /// random numbers are the snapshot's until then.
    pub entropy: Vec<u8>,
    /// The wall clock: nanoseconds since 1970. Time has passed since the snapshot.
    pub realtime_ns: u64,
    /// Host name, as in the run specification.
    pub hostname: String,
    /// As many as the machine had, in their order; addresses and routes replace theirs.
    pub interfaces: Vec<Interface>,
    /// As in the run specification.
    pub resolver: Resolver,
    /// As in the run specification.
    pub extra_hosts: Vec<Host>,
}
