// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--timings`: what a person wants to know of a run's time, as a table for stderr after the end.

use super::stages::Stages;
use std::fmt::{self, Write as _};
use std::time::Duration;

/// The table. `completions` are shown in their order; hosts that do not emulate have none.
#[must_use]
pub(crate) fn table(stages: &Stages, completions: &[(String, u64)]) -> String {
    let mut text = String::new();
    render(&mut text, stages, stages.elapsed(), completions).expect("a string takes all that is written to it");
    text
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
    use crate::state::stages::Stage;

    #[test]
    fn each_stage_has_its_moment_and_its_length() {
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
    fn hosts_that_complete_nothing_have_no_table_of_completions() {
        assert!(!table(&Stages::start(), &[]).contains("completed"));
    }
}
