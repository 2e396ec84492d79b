// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `ps`: lists machines, from their run directories alone.

use super::machines::{self, RunDirArgument, json_text, print};
use super::{table, words};
use crate::run::failure::Failure;
use crate::state::machines::{MachineInfo, MachineState};
use crate::state::status::{State, Status};
use clap::Args;
use guest_protocol::health::HealthStatus;
use serde_json::{Value, json};
use std::str::FromStr;
use std::time::SystemTime;

/// Without `--no-trunc`, as in docker.
const MAX_COMMAND_CHARACTERS: usize = 20;

/// List machines
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  coracle ps
  coracle ps -a --filter status=exited
  coracle rm $(coracle ps -aq)")]
pub(super) struct PsArguments {
    /// Show machines that have ended, too
    #[arg(short, long)]
    all: bool,
    /// Show names only
    #[arg(short, long)]
    quiet: bool,
    /// Do not shorten container IDs, images and commands
    #[arg(long)]
    no_trunc: bool,
    /// Show only machines with name=PART, id=BEGINNING or status=STATE
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<Filter>,
    /// Print one JSON array instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    run_dir: RunDirArgument,
}

/// A machine is shown if it matches one filter of each key that is given.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Filter {
    Name(String),
    Id(String),
    Status(MachineState),
}

/// clap names option and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum FilterError {
    #[error("a filter is name=PART, id=BEGINNING or status=STATE")]
    Key,
    #[error("a state is created, starting, running, paused, stopping, exited, failed or dead")]
    State,
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        match text.split_once('=') {
            Some(("name", part)) => Ok(Self::Name(part.to_owned())),
            Some(("id", beginning)) => Ok(Self::Id(beginning.to_owned())),
            Some(("status", "created")) => Ok(Self::Status(MachineState::Created)),
            Some(("status", "dead")) => Ok(Self::Status(MachineState::Dead)),
            Some(("status", state)) => match serde_json::from_value::<State>(state.into()) {
                Ok(state) => Ok(Self::Status(MachineState::Reported(state))),
                Err(_) => Err(FilterError::State),
            },
            _ => Err(FilterError::Key),
        }
    }
}

impl Filter {
    fn matches(&self, machine: &MachineInfo) -> bool {
        match self {
            Self::Name(part) => machine.name.contains(part),
            Self::Id(beginning) => {
                let id = machine.status.as_ref().map_or("", |status| &status.container_id);
                id.starts_with(beginning) || machine.name.starts_with(beginning)
            }
            Self::Status(state) => machine.state() == *state,
        }
    }
}

/// Prints the list and returns the exit status.
pub(super) fn ps(arguments: &PsArguments) -> u8 {
    machines::status(list(arguments).map(|text| print(&text)))
}

fn list(arguments: &PsArguments) -> Result<String, Failure> {
    let mut machines = arguments.run_dir.machines()?;
    machines.retain(|machine| is_shown(arguments, machine));
    let created = |machine: &MachineInfo| machine.status.as_ref().map(|status| status.created);
    machines.sort_by_key(|machine| std::cmp::Reverse(created(machine)));
    Ok(if arguments.json {
        let documents: Vec<Value> = machines.iter().map(document).collect();
        json_text(&documents)
    } else if arguments.quiet {
        machines.iter().map(|machine| format!("{}\n", machine.name)).collect()
    } else {
        let titles = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"];
        let now = SystemTime::now();
        let rows: Vec<_> = machines.iter().map(|machine| row(machine, arguments.no_trunc, now)).collect();
        table::render(titles, &rows)
    })
}

fn is_shown(arguments: &PsArguments, machine: &MachineInfo) -> bool {
    let filters = &arguments.filter;
    let filters_by_state = filters.iter().any(|filter| matches!(filter, Filter::Status(_)));
    let matches_all_keys = filters.iter().all(|filter| {
        let has_same_key = |other: &&Filter| std::mem::discriminant(*other) == std::mem::discriminant(filter);
        filters.iter().filter(has_same_key).any(|other| other.matches(machine))
    });
    matches_all_keys && (arguments.all || filters_by_state || !machine.has_ended())
}

/// The status with the state as it is seen from outside: the status of a killed process is outdated.
pub(super) fn document(machine: &MachineInfo) -> Value {
    let mut document = match &machine.status {
        Some(status) => serde_json::to_value(status).expect("a status is an object"),
        None => json!({ "id": machine.name }),
    };
    document["state"] = machine.state().to_string().into();
    document
}

fn row(machine: &MachineInfo, no_trunc: bool, now: SystemTime) -> [String; 7] {
    let limit = |characters: usize| (!no_trunc).then_some(characters);
    let state = state_words(machine, now);
    let Some(status) = &machine.status else {
        let [id, image, command, created, ports] = Default::default();
        return [id, image, command, created, state, ports, machine.name.clone()];
    };
    let id = if no_trunc { &status.container_id } else { machine.short_id() };
    [
        table::cell(id, None),
        table::cell(status.image.as_deref().unwrap_or_default(), limit(table::MAX_IMAGE_CHARACTERS)),
        format!("\"{}\"", table::cell(&status.command.join(" "), limit(MAX_COMMAND_CHARACTERS))),
        format!("{} ago", since(status.created, now)),
        state,
        table::cell(&status.shown_ports().join(", "), None),
        machine.name.clone(),
    ]
}

fn since(then: SystemTime, now: SystemTime) -> String {
    words::duration(now.duration_since(then).unwrap_or_default())
}

/// The column STATUS, in docker's words as far as possible.
pub(super) fn state_words(machine: &MachineInfo, now: SystemTime) -> String {
    let Some(status) = &machine.status else { return capitalized(&machine.state().to_string()) };
    let time = since(status.since, now);
    let up = || since(status.created, now);
    match (machine.state(), &status.end) {
        (MachineState::Reported(State::Running), _) => format!("Up {}{}", up(), health_words(status)),
        (MachineState::Reported(State::Paused), _) => format!("Up {} (Paused)", up()),
        (MachineState::Reported(state @ (State::Exited | State::Failed)), Some(end)) => {
            format!("{} ({}) {time} ago", capitalized(&state.to_string()), end.status)
        }
        (MachineState::Dead, _) => "Dead".to_owned(),
        (MachineState::Created, _) => "Created".to_owned(),
        (MachineState::Reported(state), _) => format!("{} {time}", capitalized(&state.to_string())),
    }
}

/// What docker appends to the time.
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
