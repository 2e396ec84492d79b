// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The stages of a boot and when they were reached. `main` marks them.

use serde::{Serialize, Serializer};
use std::time::{Duration, Instant};

/// The stages, in the order in which they are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// The command line and the configuration are sound.
    Parsed,
    /// The root disk is there.
    ImageReady,
    /// Memory is loaded, devices and vCPUs are made.
    MachineBuilt,
    /// The vCPUs may run: the guest's first instruction.
    FirstInstruction,
    /// PID 1 of the guest said hello.
    InitStarted,
    /// The workload was executed.
    WorkloadExecuted,
}

impl Stage {
    /// All of them.
    pub(crate) const ALL: [Self; 6] = [
        Self::Parsed,
        Self::ImageReady,
        Self::MachineBuilt,
        Self::FirstInstruction,
        Self::InitStarted,
        Self::WorkloadExecuted,
    ];

    /// As the result document spells it.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Parsed => "parsed",
            Self::ImageReady => "image_ready",
            Self::MachineBuilt => "machine_built",
            Self::FirstInstruction => "first_instruction",
            Self::InitStarted => "init_started",
            Self::WorkloadExecuted => "workload_executed",
        }
    }
}

/// When each stage was reached. Written as an object of microseconds; stages that were not reached are left out.
#[derive(Clone, Debug)]
pub struct Stages {
    start: Instant,
    reached: [Option<Duration>; Stage::ALL.len()],
}

impl Stages {
    /// The clock starts now: the first line of `main`.
    #[must_use]
    pub fn start() -> Self {
        Self { start: Instant::now(), reached: [None; Stage::ALL.len()] }
    }

    /// `stage` is reached now. Only the first time counts.
    pub(crate) fn mark(&mut self, stage: Stage) {
        self.mark_at(stage, self.start.elapsed());
    }

    fn mark_at(&mut self, stage: Stage, after: Duration) {
        self.reached[stage as usize].get_or_insert(after);
    }

    /// Since the start.
    #[must_use]
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Whether `stage` was reached.
    #[must_use]
    pub(crate) fn has_reached(&self, stage: Stage) -> bool {
        self.reached[stage as usize].is_some()
    }

    /// What was reached, with the time since the start.
    pub(crate) fn reached(&self) -> impl Iterator<Item = (Stage, Duration)> + '_ {
        Stage::ALL.into_iter().filter_map(|stage| Some((stage, self.reached[stage as usize]?)))
    }
}

impl Serialize for Stages {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        serializer.collect_map(self.reached().map(|(stage, time)| (stage.name(), micros(time))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_written_in_microseconds_and_only_if_reached() {
        let mut stages = Stages::start();
        stages.mark_at(Stage::ImageReady, Duration::from_micros(1500));
        stages.mark_at(Stage::Parsed, Duration::from_micros(30));
        assert_eq!(serde_json::to_string(&stages).unwrap(), r#"{"parsed":30,"image_ready":1500}"#);
    }

    #[test]
    fn a_stage_is_reached_once() {
        let mut stages = Stages::start();
        stages.mark_at(Stage::InitStarted, Duration::from_millis(1));
        stages.mark(Stage::InitStarted);
        assert_eq!(stages.reached().collect::<Vec<_>>(), [(Stage::InitStarted, Duration::from_millis(1))]);
    }
}
