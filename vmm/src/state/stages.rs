// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The stages of a boot: when each was reached, and the table of `--timings`. `main` marks them.

use serde::{Serialize, Serializer};
use std::fmt::{self, Write as _};
use std::time::{Duration, Instant};

/// The stages, in the order in which they are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Command line and configuration document are valid.
    Parsed,
    /// The root disk is open.
    ImageReady,
    /// The machine starts from a template, whose files are open.
    TemplateOpened,
    /// Memory is loaded, devices and vCPUs are created.
    MachineBuilt,
    /// The vCPUs may run: the guest's first instruction.
    FirstInstruction,
    /// PID 1 of the guest has sent its first message.
    InitStarted,
    WorkloadExecuted,
}

impl Stage {
    pub(crate) const ALL: [Self; 7] = [
        Self::Parsed,
        Self::ImageReady,
        Self::TemplateOpened,
        Self::MachineBuilt,
        Self::FirstInstruction,
        Self::InitStarted,
        Self::WorkloadExecuted,
    ];

    /// Key in the result document.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Parsed => "parsed",
            Self::ImageReady => "image_ready",
            Self::TemplateOpened => "template_opened",
            Self::MachineBuilt => "machine_built",
            Self::FirstInstruction => "first_instruction",
            Self::InitStarted => "init_started",
            Self::WorkloadExecuted => "workload_executed",
        }
    }
}

/// When each stage was reached. Serialized as an object of microseconds, without the stages that were not reached.
#[derive(Clone, Debug)]
pub struct Stages {
    start: Instant,
    reached: [Option<Duration>; Stage::ALL.len()],
}

impl Stages {
    /// Starts the clock: the first line of `main`. The kernel has the start of the process to 10 ms only; what is missed is the
    /// dynamic loader's work, less than a millisecond.
    #[must_use]
    pub fn start() -> Self {
        Self { start: Instant::now(), reached: [None; Stage::ALL.len()] }
    }

    /// Only the first time counts.
    pub(crate) fn mark(&mut self, stage: Stage) {
        self.mark_at(stage, self.start.elapsed());
    }

    fn mark_at(&mut self, stage: Stage, after: Duration) {
        self.reached[stage as usize].get_or_insert(after);
    }

    /// The stage turned out not to be one of this boot.
    pub(crate) fn unmark(&mut self, stage: Stage) {
        self.reached[stage as usize] = None;
    }

    /// Time since the start.
    #[must_use]
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    #[must_use]
    pub(crate) fn has_reached(&self, stage: Stage) -> bool {
        self.reached[stage as usize].is_some()
    }

    /// The stages that were reached, with the time since the start.
    pub(crate) fn reached(&self) -> impl Iterator<Item = (Stage, Duration)> + '_ {
        Stage::ALL.into_iter().filter_map(|stage| Some((stage, self.reached[stage as usize]?)))
    }

    /// The table of `--timings`. `completions` are in their order; hosts that do not emulate have none.
    #[must_use]
    pub(crate) fn table(&self, completions: &[(String, u64)]) -> String {
        let mut text = String::new();
        render(&mut text, self, self.elapsed(), completions).expect("a string takes everything that is written to it");
        text
    }
}

impl Serialize for Stages {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        serializer.collect_map(self.reached().map(|(stage, time)| (stage.name(), micros(time))))
    }
}

fn render(out: &mut String, stages: &Stages, end: Duration, completions: &[(String, u64)]) -> Result<(), fmt::Error> {
    writeln!(out, "{:<24} {:>12} {:>12}", "stage", "at", "took")?;
    let reached = stages.reached().map(|(stage, at)| (stage.name().replace('_', " "), at));
    let mut before = Duration::ZERO;
    for (name, at) in reached.chain([("end".to_owned(), end)]) {
        writeln!(out, "{name:<24} {:>12} {:>12}", milliseconds(at), milliseconds(at.saturating_sub(before)))?;
        before = at;
    }
    if !completions.is_empty() {
        writeln!(out, "{:<24} {:>12}", "instructions completed", "times")?;
        for (name, count) in completions {
            writeln!(out, "{name:<24} {count:>12}")?;
        }
    }
    Ok(())
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reached_stages_are_written_in_microseconds() {
        let mut stages = Stages::start();
        stages.mark_at(Stage::ImageReady, Duration::from_micros(1500));
        stages.mark_at(Stage::Parsed, Duration::from_micros(30));
        assert_eq!(serde_json::to_string(&stages).unwrap(), r#"{"parsed":30,"image_ready":1500}"#);
    }

    #[test]
    fn mark_counts_the_first_time_only() {
        let mut stages = Stages::start();
        stages.mark_at(Stage::InitStarted, Duration::from_millis(1));
        stages.mark(Stage::InitStarted);
        assert_eq!(stages.reached().collect::<Vec<_>>(), [(Stage::InitStarted, Duration::from_millis(1))]);
    }

    #[test]
    fn unmarked_stage_is_not_one_of_the_boot() {
        let mut stages = Stages::start();
        stages.mark(Stage::TemplateOpened);
        stages.unmark(Stage::TemplateOpened);
        assert!(!stages.has_reached(Stage::TemplateOpened));
        assert_eq!(serde_json::to_string(&stages).unwrap(), "{}");
    }

    #[test]
    fn table_has_time_and_length_of_each_stage() {
        let mut stages = Stages::start();
        stages.mark(Stage::Parsed);
        let mut text = String::new();
        render(&mut text, &stages, Duration::from_secs(2), &[("xrstor".to_owned(), 12)]).unwrap();
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines.len(), 5, "{text}");
        assert_eq!(lines[1][0], "parsed");
        assert_eq!(lines[2][..3], ["end", "2000.00", "ms"]);
        assert_eq!(lines[4], ["xrstor", "12"]);
    }

    #[test]
    fn table_has_no_completions_on_native_hosts() {
        assert!(!Stages::start().table(&[]).contains("completed"));
    }
}
