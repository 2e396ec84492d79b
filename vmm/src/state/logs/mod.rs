// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The output of a detached workload: `stdout.log` and `stderr.log` in the run directory, written by the `io` event loop, read by the
//! verb `logs` and by clients of the control socket.
//!
//! The records have the form of Kubernetes' container runtimes (CRI), which log shippers read:
//!
//! ```text
//! 2026-11-22T10:00:00.123456Z stdout F a line
//! 2026-11-22T10:00:00.123457Z stdout P a line that has no end y
//! 2026-11-22T10:00:01.000000Z stdout F et
//! ```
//!
//! `F` ends a line, `P` does not: together they are exactly the bytes of the stream. Times increase strictly over both files, which
//! orders the records of the two streams.

mod log_notifier;
mod reader;
mod record;
mod stream_log;

pub(crate) use log_notifier::LogNotifier;
pub(crate) use reader::LogReader;
pub(crate) use record::{Record, Stream};
pub(crate) use stream_log::StreamLog;
