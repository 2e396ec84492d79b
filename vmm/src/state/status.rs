// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The status of a machine: `status.json` in its run directory, a line of `events.jsonl` at each change, and the response to
//! `GET /v1/status`. Written by `main`, read by every verb. Plain data.

use super::counters::Counters;
use super::end::End;
use super::published_port::PublishedPort;
use crate::config::rfc3339;
use crate::host::process::ProcessId;
use crate::host::random::{RandomError, random_hex};
use guest_protocol::health::HealthReport;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::SystemTime;

/// Increased when a reader of the old document would misunderstand the new one.
pub(crate) const VERSION: u32 = 1;
/// Hexadecimal digits of a container ID, as in docker.
const CONTAINER_ID_DIGITS: usize = 64;
/// Digits of it that a table shows, and that a name must have to be the beginning of one.
pub(crate) const SHORT_ID_DIGITS: usize = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// The workload was not executed yet.
    Starting,
    Running,
    /// The vCPUs are held.
    Paused,
    /// A request to stop was accepted.
    Stopping,
    /// The workload ended by itself or on request.
    Exited,
    /// Coracle or the guest's kernel failed.
    Failed,
}

impl State {
    /// Whether the machine has ended.
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

/// The host's end of a network interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Link {
    Up,
    /// It is set down or deleted, or the process that it is connected to has gone.
    Down,
}

impl Link {
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// A machine at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// [`VERSION`].
    pub(crate) version: u32,
    /// Number of the change that led here, from 1.
    pub(crate) sequence: u64,
    /// Name of the machine (`--name`, `--id`) and of its run directory.
    pub(crate) id: String,
    /// See [`container_id`]. Empty in a document of an earlier version.
    #[serde(default)]
    pub(crate) container_id: String,
    pub(crate) state: State,
    /// Beginning of the state.
    #[serde(with = "rfc3339")]
    pub(crate) since: SystemTime,
    /// Start of the process.
    #[serde(with = "rfc3339")]
    pub(crate) created: SystemTime,
    pub(crate) pid: u32,
    /// With `pid` it identifies the process; see [`ProcessId`].
    pub(crate) pid_started: u64,
    pub(crate) ready: bool,
    /// Result of the last health check; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) health: Option<HealthReport>,
    /// As given on the command line.
    pub(crate) image: Option<String>,
    /// Arguments of the workload, from the image once that is read.
    pub(crate) command: Vec<String>,
    /// ExposedPorts of the image, for example `80/tcp`.
    #[serde(default)]
    pub(crate) ports: Vec<String>,
    /// On the host (`--publish`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) published: Vec<PublishedPort>,
    pub(crate) detached: bool,
    pub(crate) terminal: bool,
    #[serde(default)]
    pub(crate) interactive: bool,
    pub(crate) cpus: u8,
    pub(crate) memory_bytes: u64,
    /// Of the guest, where they are known.
    pub(crate) addresses: Vec<String>,
    /// Of the network interfaces, in their order. Empty before the machine is built.
    #[serde(default)]
    pub(crate) links: Vec<Link>,
    pub(crate) counters: Counters,
    /// Present once the machine has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) end: Option<End>,
}

/// A new container ID: 64 hexadecimal digits that identify one start, where a name may be used again. They are random, but begin with
/// `name` if that could be a container ID itself: a random name, or the identifier of a container manager.
///
/// # Errors
/// The kernel's random number generator failed.
pub(crate) fn container_id(name: &str) -> Result<String, RandomError> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let is_id = (SHORT_ID_DIGITS..=CONTAINER_ID_DIGITS).contains(&name.len()) && name.bytes().all(is_digit);
    let given = if is_id { name } else { "" };
    Ok(format!("{given}{}", random_hex(CONTAINER_ID_DIGITS - given.len())?))
}

impl Status {
    /// Published ports, then those of the image's that are not published.
    #[must_use]
    pub(crate) fn shown_ports(&self) -> Vec<String> {
        let published = self.published.iter().filter(|_| !self.state.is_end());
        let guests: Vec<String> = published.clone().map(PublishedPort::guest).collect();
        let exposed = self.ports.iter().filter(|port| !guests.contains(port)).cloned();
        published.map(ToString::to_string).chain(exposed).collect()
    }

    #[must_use]
    pub(crate) fn process(&self) -> ProcessId {
        ProcessId { pid: self.pid, started: self.pid_started }
    }

    /// The document as one line.
    #[must_use]
    pub(crate) fn to_line(&self) -> String {
        let mut line = serde_json::to_string(self).expect("the keys are strings and the numbers finite");
        line.push('\n');
        line
    }
}

#[cfg(test)]
impl Status {
    /// Of a machine that is starting.
    pub(crate) fn sample() -> Self {
        use std::time::{Duration, UNIX_EPOCH};
        let time = UNIX_EPOCH + Duration::from_secs(1_795_264_496);
        Self {
            version: VERSION,
            sequence: 0,
            id: "web".into(),
            container_id: "0123456789abcdef".repeat(4),
            state: State::Starting,
            since: time,
            created: time,
            pid: 7,
            pid_started: 8765,
            ready: false,
            health: None,
            image: Some("oci:x".into()),
            command: vec!["sh".into()],
            ports: Vec::new(),
            published: Vec::new(),
            detached: false,
            terminal: false,
            interactive: false,
            cpus: 1,
            memory_bytes: 128 << 20,
            addresses: Vec::new(),
            links: Vec::new(),
            counters: Counters::default(),
            end: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_read_as_it_was_written() {
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
    fn keys_of_a_later_version_are_ignored() {
        let line = Status::sample().to_line().replacen('{', r#"{"later":[1],"#, 1);
        assert_eq!(serde_json::from_str::<Status>(&line).unwrap(), Status::sample());
    }

    #[test]
    fn documents_without_container_id_are_read() {
        let mut document = serde_json::to_value(Status::sample()).unwrap();
        for key in ["container_id", "ports"] {
            document.as_object_mut().unwrap().remove(key).unwrap();
        }
        let status: Status = serde_json::from_value(document).unwrap();
        assert_eq!(status, Status { container_id: String::new(), ..Status::sample() });
    }

    #[test]
    fn container_id_begins_with_a_name_of_that_form_only() {
        let [one, other] = [(); 2].map(|()| container_id("web").unwrap());
        assert!(one.len() == 64 && one != other, "{one}");
        let random = container_id("0123456789ab").unwrap();
        assert!(random.len() == 64 && random.starts_with("0123456789ab"), "{random}");
        let whole = "0123456789abcdef".repeat(4);
        assert_eq!(container_id(&whole).unwrap(), whole);
        for name in ["cafe", "0123456789AB", &format!("{whole}0")] {
            let id = container_id(name).unwrap();
            assert!(id.len() == 64 && !id.starts_with(name), "{name}: {id}");
        }
    }
}
