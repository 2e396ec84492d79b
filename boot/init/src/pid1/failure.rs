// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Why a process could not be started, in the form of the protocol.

use alloc::borrow::{Cow, ToOwned};
use alloc::string::String;
use core::fmt;
use guest_init::executable::ExecuteError;
use guest_init::user::UserError;
use guest_protocol::exec::ExecReport;
use guest_protocol::protocol::{FailureKind, ToHost};
use rustix::io::Errno;

/// Bound of [`Failure::detail`]: it names paths and lists of them, whose length the image decides.
const MAX_DETAIL_BYTES: usize = 4096;

#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    pub(crate) step: Cow<'static, str>,
    /// The message, which names the object.
    pub(crate) detail: String,
    /// Linux error number, or 0.
    pub(crate) errno: i32,
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, step: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        if detail.len() > MAX_DETAIL_BYTES {
            let end = (0..=MAX_DETAIL_BYTES).rev().find(|&end| detail.is_char_boundary(end));
            detail.truncate(end.unwrap_or(0));
        }
        Self { kind, step: step.into(), detail, errno: 0 }
    }

    /// PID 1 could not carry out `step`; `detail` names the object.
    pub(crate) fn setup(step: &'static str, detail: impl Into<String>, errno: Errno) -> Self {
        Self::new(FailureKind::Setup, step, detail).with_errno(errno)
    }

    /// The image or the machine lacks something that the configuration names.
    pub(crate) fn configuration(step: &'static str, detail: impl Into<String>) -> Self {
        Self::new(FailureKind::Configuration, step, detail)
    }

    /// The control port is closed or carries an invalid message.
    pub(crate) fn protocol(detail: &str) -> Self {
        Self::new(FailureKind::Setup, "talk to the host", detail)
    }

    pub(crate) fn with_errno(self, errno: Errno) -> Self {
        Self { errno: errno.raw_os_error(), ..self }
    }
}

impl From<UserError> for Failure {
    fn from(error: UserError) -> Self {
        Self::configuration("find user", alloc::format!("{error}"))
    }
}

impl From<ExecuteError> for Failure {
    fn from(error: ExecuteError) -> Self {
        Self { errno: error.errno, ..Self::new(error.kind, "execute", error.detail) }
    }
}

impl From<Failure> for ToHost {
    fn from(failure: Failure) -> Self {
        let Failure { kind, step, detail, errno } = failure;
        Self::Failed { kind, step: step.into_owned(), detail, errno }
    }
}

impl From<Failure> for ExecReport {
    fn from(failure: Failure) -> Self {
        let Failure { kind, step, detail, errno } = failure;
        Self::Failed { kind, step: step.into_owned(), detail, errno }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (errno {})", self.step, self.detail, self.errno)
    }
}

/// Adds the step and the object to the error of a system call.
pub(crate) trait Step<T> {
    fn step(self, step: &'static str, object: &str) -> Result<T, Failure>;
}

impl<T> Step<T> for Result<T, Errno> {
    fn step(self, step: &'static str, object: &str) -> Result<T, Failure> {
        self.map_err(|errno| Failure::setup(step, object.to_owned(), errno))
    }
}
