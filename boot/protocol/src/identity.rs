// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What makes a machine distinct from the one whose snapshot it was restored from, or from others of
//! its template. PID 1 takes it on before a process of the workload runs.

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

/// What a machine has of its own that starts from a template, besides its run specification, which
/// follows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateStart {
    /// As in [`Identity`].
    pub entropy: Vec<u8>,
    /// As in [`Identity`].
    pub realtime_ns: u64,
    /// Size of each disk in sectors of 512 bytes, in their order.
    pub disk_sectors: Vec<u64>,
    /// Hardware address of each interface, in their order. In the template they have
    /// [`template_mac`].
    pub macs: Vec<[u8; 6]>,
}

/// The hardware address of the interface at `position` in a template.
#[must_use]
pub const fn template_mac(position: u8) -> [u8; 6] {
    [0x02, 0, 0, 0, 0, position]
}
