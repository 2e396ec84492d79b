// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `ps`: which machines there are, from the run directory alone.

use super::machines::{self, RunDirArgument, print};
use super::{table, words};
use crate::run::failure::Failure;
use crate::state::machines::{MachineInfo, MachineState};
use crate::state::status::{State, Status};
use clap::Args;
use guest_protocol::health::HealthStatus;
use serde_json::{Value, json};
use std::str::FromStr;
use std::time::SystemTime;

/// Characters of a command that are shown.
const COMMAND: usize = 20;
/// Characters of an image's name that are shown.
const IMAGE: usize = 40;

/// List machines
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coracle ps
  coracle ps -a --filter status=exited
  coracle rm $(coracle ps -aq)")]
pub(super) struct PsArguments {
    /// Show those that have ended, too
    #[arg(short, long)]
    all: bool,
    /// Show names only
    #[arg(short, long)]
    quiet: bool,
    /// Show commands and images whole
    #[arg(long)]
    no_trunc: bool,
    /// Show those only that fit: name=PART, id=BEGINNING, status=STATE
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<Filter>,
    /// One JSON array instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    run_dir: RunDirArgument,
}

/// What a machine has to be to be shown. Those with one key add up, those with different keys all have to fit.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Filter {
    Name(String),
    Id(String),
    Status(MachineState),
}

/// No filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum FilterError {
    #[error("a filter is name=PART, id=BEGINNING or status=STATE, not `{0}`")]
    Key(String),
    #[error("a state is starting, running, paused, stopping, exited, failed or dead, not `{0}`")]
    State(String),
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        match text.split_once('=') {
            Some(("name", part)) => Ok(Self::Name(part.to_owned())),
            Some(("id", beginning)) => Ok(Self::Id(beginning.to_owned())),
            Some(("status", "dead")) => Ok(Self::Status(MachineState::Dead)),
            Some(("status", state)) => match serde_json::from_value::<State>(state.into()) {
                Ok(state) => Ok(Self::Status(MachineState::Reported(state))),
                Err(_) => Err(FilterError::State(state.to_owned())),
            },
            _ => Err(FilterError::Key(text.to_owned())),
        }
    }
}

impl Filter {
    fn fits(&self, entry: &MachineInfo) -> bool {
        match self {
            Self::Name(part) => entry.name.contains(part),
            Self::Id(beginning) => entry.name.starts_with(beginning),
            Self::Status(life) => entry.state() == *life,
        }
    }
}

/// Lists and returns the exit status.
pub(super) fn ps(arguments: &PsArguments) -> u8 {
    machines::status(list(arguments).map(|text| print(&text)))
}

fn list(arguments: &PsArguments) -> Result<String, Failure> {
    let mut entries = arguments.run_dir.entries()?;
    entries.retain(|entry| is_shown(arguments, entry));
    let created = |entry: &MachineInfo| entry.status.as_ref().map(|status| status.created);
    entries.sort_by_key(|entry| std::cmp::Reverse(created(entry)));
    Ok(if arguments.json {
        let documents: Vec<Value> = entries.iter().map(document).collect();
        serde_json::to_string_pretty(&documents).expect("the keys are strings and the numbers finite") + "\n"
    } else if arguments.quiet {
        entries.iter().map(|entry| format!("{}\n", entry.name)).collect()
    } else {
        let titles = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"];
        let now = SystemTime::now();
        let rows: Vec<_> = entries.iter().map(|entry| row(entry, arguments.no_trunc, now)).collect();
        table::render(titles, &rows)
    })
}

fn is_shown(arguments: &PsArguments, entry: &MachineInfo) -> bool {
    let filters = &arguments.filter;
    let asks_for_state = filters.iter().any(|filter| matches!(filter, Filter::Status(_)));
    let fits_all = filters.iter().all(|filter| {
        let same_key = |other: &&Filter| std::mem::discriminant(*other) == std::mem::discriminant(filter);
        filters.iter().filter(same_key).any(|other| other.fits(entry))
    });
    fits_all && (arguments.all || asks_for_state || !entry.has_ended())
}

/// The status as it is seen from outside: a killed process leaves one that is no longer true.
pub(super) fn document(entry: &MachineInfo) -> Value {
    let mut document = match &entry.status {
        Some(status) => serde_json::to_value(status).expect("a status is an object"),
        None => json!({ "id": entry.name }),
    };
    document["state"] = entry.state().to_string().into();
    document
}

fn row(entry: &MachineInfo, whole: bool, now: SystemTime) -> [String; 7] {
    let limit = |characters: usize| (!whole).then_some(characters);
    let (image, command, created) = match &entry.status {
        Some(status) => (
            table::cell(status.image.as_deref().unwrap_or_default(), limit(IMAGE)),
            format!("\"{}\"", table::cell(&status.command.join(" "), limit(COMMAND))),
            format!("{} ago", since(status.created, now)),
        ),
        None => Default::default(),
    };
    [entry.name.clone(), image, command, created, state_words(entry, now), String::new(), entry.name.clone()]
}

fn since(then: SystemTime, now: SystemTime) -> String {
    words::duration(now.duration_since(then).unwrap_or_default())
}

/// The column STATUS, as far as possible in docker's words.
pub(super) fn state_words(entry: &MachineInfo, now: SystemTime) -> String {
    let Some(status) = &entry.status else { return capitalized(&entry.state().to_string()) };
    let time = since(status.since, now);
    let up = || since(status.created, now);
    match (entry.state(), &status.end) {
        (MachineState::Reported(State::Running), _) => format!("Up {}{}", up(), health_words(status)),
        (MachineState::Reported(State::Paused), _) => format!("Up {} (Paused)", up()),
        (MachineState::Reported(state @ (State::Exited | State::Failed)), Some(end)) => {
            format!("{} ({}) {time} ago", capitalized(&state.to_string()), end.status)
        }
        (MachineState::Dead, _) => "Dead".to_owned(),
        (MachineState::Reported(state), _) => format!("{} {time}", capitalized(&state.to_string())),
    }
}

/// As docker has them behind the time.
fn health_words(status: &Status) -> &'static str {
    match status.health.as_ref().map(|report| report.status) {
        None => "",
        Some(HealthStatus::Starting) => " (health: starting)",
        Some(HealthStatus::Healthy) => " (healthy)",
        Some(HealthStatus::Unhealthy) => " (unhealthy)",
    }
}

fn capitalized(word: &str) -> String {
    let mut characters = word.chars();
    characters.next().into_iter().flat_map(char::to_uppercase).chain(characters).collect()
}

#[cfg(test)]
#[path = "ps_tests.rs"]
mod tests;
