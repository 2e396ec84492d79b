// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Medians and ratios, as Markdown for people and as JSON for the next comparison.

use crate::bench::unit::{Unit, median, processors};
use serde_json::{Value, json};
use std::fmt::Write;

struct Row {
    name: String,
    unit: Unit,
    /// Of each monitor.
    samples: Vec<Vec<u64>>,
}

/// One row a measure, one column a monitor; the first is the one that the others are compared with. What cannot be measured of
/// a monitor stays without samples.
pub(super) struct Table {
    rounds: usize,
    monitors: Vec<&'static str>,
    rows: Vec<Row>,
}

impl Table {
    pub(super) fn new(rounds: usize, monitors: impl Into<Vec<&'static str>>) -> Table {
        Table { rounds, monitors: monitors.into(), rows: Vec::new() }
    }

    /// A sample of the monitor at `index`.
    pub(super) fn add(&mut self, name: &str, unit: Unit, index: usize, sample: u64) {
        let at = self.rows.iter().position(|row| row.name == name).unwrap_or_else(|| {
            self.rows.push(Row { name: name.to_owned(), unit, samples: vec![Vec::new(); self.monitors.len()] });
            self.rows.len() - 1
        });
        self.rows[at].samples[index].push(sample);
    }

    pub(super) fn markdown(&self) -> String {
        let mut text = format!("{}; medians of {} rounds (least to most)\n\n| measure |", processors(), self.rounds);
        for monitor in &self.monitors {
            let _ = write!(text, " {monitor} |");
        }
        for monitor in &self.monitors[1..] {
            let _ = write!(text, " {} / {monitor} |", self.monitors[0]);
        }
        let _ = writeln!(text, "\n|---|{}", "---|".repeat(2 * self.monitors.len() - 1));
        for row in &self.rows {
            let _ = write!(text, "| {} |", row.name);
            for samples in &row.samples {
                let show = |value: &u64| row.unit.show(*value);
                let _ = match (samples.iter().min().map(show), samples.iter().max().map(show)) {
                    (Some(least), Some(most)) => {
                        write!(text, " {} ({least} to {most}) |", row.unit.show(median(samples)))
                    }
                    _ => write!(text, " - |"),
                };
            }
            for other in &row.samples[1..] {
                let _ = match ratio(&row.samples[0], other) {
                    Some(ratio) => write!(text, " {ratio:.2} |"),
                    None => write!(text, " - |"),
                };
            }
            text.push('\n');
        }
        text
    }

    pub(super) fn json(&self) -> String {
        let row = |row: &Row| {
            let monitors: Vec<Value> = self
                .monitors
                .iter()
                .zip(&row.samples)
                .map(|(monitor, samples)| {
                    let median = (!samples.is_empty()).then(|| median(samples));
                    json!({ "monitor": monitor, "median": median, "samples": samples })
                })
                .collect();
            json!({ "name": row.name, "unit": row.unit.name(), "monitors": monitors })
        };
        let rows: Vec<Value> = self.rows.iter().map(row).collect();
        format!("{:#}\n", json!({ "version": 1, "host": processors(), "rounds": self.rounds, "measures": rows }))
    }
}

/// Of the medians, if both have one.
fn ratio(own: &[u64], other: &[u64]) -> Option<f64> {
    (!own.is_empty() && !other.is_empty()).then(|| median(own) as f64 / median(other).max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::{Table, Unit};

    #[test]
    fn the_ratio_is_that_of_the_medians() {
        let mut table = Table::new(3, ["one", "other"]);
        for (index, samples) in [[1000, 9000, 2000], [4000, 4000, 4000]].iter().enumerate() {
            samples.iter().for_each(|sample| table.add("time", Unit::Microseconds, index, *sample));
        }
        let text = table.markdown();
        assert!(text.contains("| time | 2.0 ms (1.0 ms to 9.0 ms) | 4.0 ms (4.0 ms to 4.0 ms) | 0.50 |"), "{text}");
        assert!(text.contains("| measure | one | other | one / other |\n|---|---|---|---|\n"), "{text}");
    }

    #[test]
    fn what_was_not_measured_is_no_zero() {
        let mut table = Table::new(1, ["one", "other"]);
        table.add("time", Unit::Microseconds, 0, 1000);
        let text = table.markdown();
        assert!(text.contains("| time | 1.0 ms (1.0 ms to 1.0 ms) | - | - |"), "{text}");
        let document: serde_json::Value = serde_json::from_str(&table.json()).unwrap();
        let monitors = &document["measures"][0]["monitors"];
        assert_eq!((&monitors[0]["median"], &monitors[1]["median"]), (&1000.into(), &serde_json::Value::Null));
    }
}
