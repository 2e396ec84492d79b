// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The status of a run: `status.json` in its entry, a line of `events.jsonl` at each change, and what `GET /v1/status`
//! answers. Written by `main`, read by every verb. Plain data.

use super::counters::Counters;
use super::end::End;
use crate::config::rfc3339;
use crate::host::process::ProcessId;
use guest_protocol::health::HealthReport;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::SystemTime;

/// Changes when a reader of the old document would misunderstand the new one.
pub(crate) const VERSION: u32 = 1;

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// The workload was not executed yet.
    Starting,
    /// It was.
    Running,
    /// Its vCPUs are held.
    Paused,
    /// It was asked to end.
    Stopping,
    /// It ended, by itself or because somebody wanted it.
    Exited,
    /// Coracle could not start it or go on.
    Failed,
}

impl State {
    /// Whether the run is over.
    #[must_use]
    pub(crate) fn is_end(self) -> bool {
        matches!(self, Self::Exited | Self::Failed)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// What can be said about a run at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// [`VERSION`].
    pub(crate) version: u32,
    /// Number of the change that led here, from 1 on.
    pub(crate) sequence: u64,
    /// Name of the run.
    pub(crate) id: String,
    /// How far it is.
    pub(crate) state: State,
    /// When that began.
    #[serde(with = "rfc3339")]
    pub(crate) since: SystemTime,
    /// When the process began.
    #[serde(with = "rfc3339")]
    pub(crate) created: SystemTime,
    /// The process.
    pub(crate) pid: u32,
    /// With `pid`, names the process beyond doubt; see [`ProcessId`].
    pub(crate) pid_started: u64,
    /// The workload does what it is there for.
    pub(crate) ready: bool,
    /// How it is, as the last health check says; absent if nobody checks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) health: Option<HealthReport>,
    /// As it was named.
    pub(crate) image: Option<String>,
    /// What is executed, once that is decided.
    pub(crate) command: Vec<String>,
    /// `-d`.
    pub(crate) detached: bool,
    /// `-t`.
    pub(crate) terminal: bool,
    /// `-i`.
    #[serde(default)]
    pub(crate) interactive: bool,
    /// vCPUs.
    pub(crate) cpus: u8,
    /// Memory of the guest.
    pub(crate) memory_bytes: u64,
    /// Of the guest, where they are known.
    pub(crate) addresses: Vec<String>,
    /// What it has used.
    pub(crate) counters: Counters,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) end: Option<End>,
}

impl Status {
    /// The process.
    #[must_use]
    pub(crate) fn process(&self) -> ProcessId {
        ProcessId { pid: self.pid, started: self.pid_started }
    }

    /// One line.
    #[must_use]
    pub(crate) fn to_line(&self) -> String {
        let mut line = serde_json::to_string(self).expect("the keys are strings and the numbers finite");
        line.push('\n');
        line
    }
}

#[cfg(test)]
impl Status {
    /// Of a run that nothing has happened to.
    pub(crate) fn sample() -> Self {
        use std::time::{Duration, UNIX_EPOCH};
        let time = UNIX_EPOCH + Duration::from_secs(1_795_264_496);
        Self {
            version: VERSION,
            sequence: 0,
            id: "web".into(),
            state: State::Starting,
            since: time,
            created: time,
            pid: 7,
            pid_started: 8765,
            ready: false,
            health: None,
            image: Some("oci:x".into()),
            command: vec!["sh".into()],
            detached: false,
            terminal: false,
            interactive: false,
            cpus: 1,
            memory_bytes: 128 << 20,
            addresses: Vec::new(),
            counters: Counters::default(),
            end: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_as_it_was_written_and_has_its_end_only_at_the_end() {
        let mut status = Status::sample();
        let line = status.to_line();
        assert_eq!(serde_json::from_str::<Status>(&line).unwrap(), status);
        assert!(line.contains(r#""state":"starting","since":"2026-11-21T12:34:56.000000Z""#), "{line}");
        assert!(!line.contains("\"end\""), "{line}");
        status.end = Some(End::killed("power was cut"));
        let line = status.to_line();
        assert_eq!(serde_json::from_str::<Status>(&line).unwrap(), status);
        assert_eq!(line.matches('\n').count(), 1);
    }

    #[test]
    fn what_a_later_coracle_adds_does_not_disturb() {
        let line = Status::sample().to_line().replacen('{', r#"{"later":[1],"#, 1);
        assert_eq!(serde_json::from_str::<Status>(&line).unwrap(), Status::sample());
    }
}
