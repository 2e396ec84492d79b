// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Medians next to goals, as a Markdown table to read and as JSON for the next comparison.

use super::product::Product;
use super::unit::{Unit, median, processors};
use serde_json::{Value, json};
use std::fmt::Write;

#[derive(Clone, Copy)]
pub(crate) enum Goal {
    None,
    AtMost(u64),
    AtLeast(u64),
}

pub(crate) struct Measure {
    name: String,
    samples: Vec<u64>,
    goal: Goal,
    unit: Unit,
}

impl Measure {
    pub(crate) fn time(name: &str, samples_us: Vec<u64>, goal: Goal) -> Measure {
        Measure::new(name, samples_us, goal, Unit::Microseconds)
    }

    pub(crate) fn size(name: &str, samples: Vec<u64>, goal: Goal) -> Measure {
        Measure::new(name, samples, goal, Unit::Bytes)
    }

    pub(crate) fn rate(name: &str, samples: Vec<u64>, goal: Goal) -> Measure {
        Measure::new(name, samples, goal, Unit::BytesPerSecond)
    }

    pub(crate) fn new(name: &str, mut samples: Vec<u64>, goal: Goal, unit: Unit) -> Measure {
        samples.sort_unstable();
        Measure { name: name.into(), samples, goal, unit }
    }

    fn median(&self) -> u64 {
        median(&self.samples)
    }

    fn met(&self) -> Option<bool> {
        match self.goal {
            Goal::None => None,
            Goal::AtMost(goal) => Some(self.median() <= goal),
            Goal::AtLeast(goal) => Some(self.median() >= goal),
        }
    }
}

/// All measures, and the host that they were taken on.
pub(crate) struct Report {
    host: String,
    runs: usize,
    measures: Vec<Measure>,
}

impl Report {
    pub(crate) fn new(product: &Product, runs: usize) -> Report {
        let kvm = if product.emulated() { "KVM that emulates guest kernel mode" } else { "native KVM" };
        let host = format!("{}, {kvm}", processors());
        Report { host, runs, measures: Vec::new() }
    }

    pub(crate) fn add(&mut self, measure: Measure) {
        self.measures.push(measure);
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("{}; medians of {} runs\n\n", self.host, self.runs);
        text += "| measure | median | least | most | goal |\n|---|---|---|---|---|\n";
        for measure in &self.measures {
            let show = |value: Option<&u64>| value.map_or_else(String::new, |value| measure.unit.show(*value));
            let goal = match measure.goal {
                Goal::None => String::new(),
                Goal::AtMost(goal) => format!("≤ {}", measure.unit.show(goal)),
                Goal::AtLeast(goal) => format!("≥ {}", measure.unit.show(goal)),
            };
            let verdict = measure.met().map_or("", |met| if met { ": met" } else { ": **missed**" });
            let (least, most) = (show(measure.samples.first()), show(measure.samples.last()));
            let median = measure.unit.show(measure.median());
            let _ = writeln!(text, "| {} | {median} | {least} | {most} | {goal}{verdict} |", measure.name);
        }
        text
    }

    pub(crate) fn json(&self) -> String {
        let measures: Vec<Value> = self
            .measures
            .iter()
            .map(|measure| {
                json!({
                    "name": measure.name,
                    "unit": measure.unit.name(),
                    "median": measure.median(),
                    "samples": measure.samples,
                    "met": measure.met(),
                })
            })
            .collect();
        let document = json!({ "version": 1, "host": self.host, "runs": self.runs, "measures": measures });
        format!("{document:#}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::{Goal, Measure};

    #[test]
    fn goal_is_met_by_the_median() {
        assert_eq!(Measure::time("fast", vec![1, 5, 100], Goal::AtMost(5)).met(), Some(true));
        assert_eq!(Measure::rate("slow", vec![1, 5, 100], Goal::AtLeast(6)).met(), Some(false));
        assert_eq!(Measure::size("any", vec![1], Goal::None).met(), None);
    }
}
