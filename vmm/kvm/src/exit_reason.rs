// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Why the machine stopped by itself. Plain data.

/// Why a vCPU left its run loop, and the machine stops with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExitReason {
    /// The guest pulled the reset line.
    Reset,
    /// The guest switched the machine off.
    Poweroff,
    /// The guest wrote this value to the exit-status port.
    ExitStatus(u8),
    /// Triple fault or an equivalent shutdown; the registers in one line.
    TripleFault(String),
    /// KVM could not go on; one line.
    KvmError(String),
    /// The host lacks a resource that a device needs; one line.
    HostError(String),
    /// A bug in coracle; one line.
    InternalError(String),
}
