// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Why the workload could not be run, in the words of the protocol.

use alloc::borrow::ToOwned;
use alloc::string::String;
use core::fmt;
use guest_init::executable::NotExecuted;
use guest_init::user::UserError;
use guest_protocol::protocol::{FailureKind, ToHost};
use rustix::io::Errno;

/// The step that failed, on what, and the kernel's error number (0 if it was not the kernel's decision).
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    pub(crate) step: &'static str,
    pub(crate) detail: String,
    pub(crate) errno: i32,
}

impl Failure {
    /// The guest could not do `step`; `detail` names the object.
    pub(crate) fn surroundings(step: &'static str, detail: impl Into<String>, errno: Errno) -> Self {
        Self { kind: FailureKind::Setup, step, detail: detail.into(), errno: errno.raw_os_error() }
    }

    /// The image or the machine lacks what the configuration names.
    pub(crate) fn configuration(step: &'static str, detail: impl Into<String>) -> Self {
        Self { kind: FailureKind::Configuration, step, detail: detail.into(), errno: 0 }
    }

    /// The same, found out by a system call.
    pub(crate) fn refused(step: &'static str, detail: impl Into<String>, errno: Errno) -> Self {
        Self { errno: errno.raw_os_error(), ..Self::configuration(step, detail) }
    }

    /// The conversation with the host broke.
    pub(crate) fn conversation(detail: &str) -> Self {
        Self { kind: FailureKind::Setup, step: "talk to the host", detail: detail.to_owned(), errno: 0 }
    }
}

impl From<UserError> for Failure {
    fn from(error: UserError) -> Self {
        Self::configuration("find user", alloc::format!("{error}"))
    }
}

impl From<NotExecuted> for Failure {
    fn from(error: NotExecuted) -> Self {
        Self { kind: error.kind, step: "execute", detail: error.detail, errno: error.errno }
    }
}

impl From<Failure> for ToHost {
    fn from(failure: Failure) -> Self {
        Self::Failed { kind: failure.kind, step: failure.step.to_owned(), detail: failure.detail, errno: failure.errno }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (errno {})", self.step, self.detail, self.errno)
    }
}

/// Turns the error of a system call into the failure of a step.
pub(crate) trait Step<T> {
    /// `step` failed on `object`.
    fn step(self, step: &'static str, object: &str) -> Result<T, Failure>;
}

impl<T> Step<T> for Result<T, Errno> {
    fn step(self, step: &'static str, object: &str) -> Result<T, Failure> {
        self.map_err(|errno| Failure::surroundings(step, object, errno))
    }
}
