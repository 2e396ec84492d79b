// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The output of a detached workload: `stdout.log` and `stderr.log` in its entry, written by the `io` event loop, read by
//! `logs`.
//!
//! Each holds records in the form that container runtimes use for Kubernetes (CRI), so that log shippers know it:
//!
//! ```text
//! 2026-11-22T10:00:00.123456Z stdout F a line
//! 2026-11-22T10:00:00.123457Z stdout P a line that has no end y
//! 2026-11-22T10:00:01.000000Z stdout F et
//! ```
//!
//! `F` ends a line, `P` does not: together they are the bytes of the stream, exactly. Times grow strictly over both files, so
//! that the order between the streams can be told.

mod log_notifier;
mod reader;
mod record;
mod stream_log;

pub(crate) use log_notifier::LogNotifier;
pub(crate) use reader::LogReader;
pub(crate) use record::{Record, Stream};
pub(crate) use stream_log::StreamLog;
