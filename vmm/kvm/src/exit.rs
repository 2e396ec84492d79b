// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Why a vCPU stopped for good. Plain data.

/// The end of a vCPU's run loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VcpuEnd {
    /// It was asked to stop.
    Stopped,
    /// The guest pulled the reset line.
    Reset,
    /// The guest switched the machine off.
    Poweroff,
    /// The guest wrote to the exit-status port.
    ExitStatus(u8),
    /// Triple fault or an equivalent shutdown; the registers at the end in one line.
    TripleFault(String),
    /// The host's KVM could not go on; one line.
    KvmError(String),
    /// A bug of ours; one line.
    InternalError(String),
}
