// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The workload's streams: those of this process or, of a detached machine, its logs and an input that attached clients
//! write to. Opened by `main`.

use super::failure::{FailsAs as _, Failure};
use crate::config::size::LogSize;
use crate::machine::{StreamOutput, Streams};
use crate::state::end::EndReason;
use crate::state::logs::{LogNotifier, StreamLog};
use std::io::{Error, PipeWriter};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

/// The streams, and for a detached machine the other end of its input and the notifier of its logs.
#[derive(Debug)]
pub(super) struct WorkloadStreams {
    pub(super) streams: Streams,
    /// Attached clients' input, open as long as the machine runs.
    pub(super) input: Option<PipeWriter>,
    /// Notified when the logs grow.
    pub(super) log_notifier: Option<Arc<LogNotifier>>,
}

#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error("cannot duplicate a standard stream")]
    Duplicate(#[source] Error),
    #[error("cannot make the logs of a detached machine")]
    Logs(#[source] Error),
}

impl WorkloadStreams {
    /// The standard streams of this process; its input only if the workload is interactive.
    pub(super) fn inherit(interactive: bool) -> Result<Self, Failure> {
        let duplicate = |stream: BorrowedFd<'_>| -> Result<OwnedFd, Failure> {
            stream.try_clone_to_owned().map_err(StreamError::Duplicate).fails_as(EndReason::HostError)
        };
        let streams = Streams {
            input: if interactive { Some(duplicate(std::io::stdin().as_fd())?) } else { None },
            output: Some(StreamOutput::Descriptor(duplicate(std::io::stdout().as_fd())?)),
            error: Some(StreamOutput::Descriptor(duplicate(std::io::stderr().as_fd())?)),
        };
        Ok(Self { streams, input: None, log_notifier: None })
    }

    /// Logs in the run directory `entry`, each of at most `size`.
    pub(super) fn log(entry: &Path, size: Option<LogSize>, interactive: bool) -> Result<Self, Failure> {
        let open = || -> Result<Self, Error> {
            let log_notifier = Arc::new(LogNotifier::new()?);
            let [output, error] = StreamLog::create(entry, size.unwrap_or_default().bytes(), &log_notifier)?
                .map(|log| Some(StreamOutput::Log(log)));
            let (reader, input) = if interactive { Some(std::io::pipe()?).unzip() } else { (None, None) };
            let streams = Streams { input: reader.map(Into::into), output, error };
            Ok(Self { streams, input, log_notifier: Some(log_notifier) })
        };
        open().map_err(StreamError::Logs).fails_as(EndReason::HostError)
    }
}
