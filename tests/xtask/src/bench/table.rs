// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Medians and ratios of several subjects, as Markdown to read and as JSON for the next comparison.

use super::unit::{Unit, median, processors};
use serde_json::{Value, json};
use std::fmt::Write;

struct Row {
    name: String,
    unit: Unit,
    samples: Vec<Vec<u64>>,
}

/// One row a measure, one column a subject: a monitor, or a build of one. The others are compared with the first. A subject of
/// which something cannot be measured has no samples of it.
pub(super) struct Table {
    rounds: usize,
    subject: &'static str,
    subjects: Vec<&'static str>,
    rows: Vec<Row>,
}

impl Table {
    /// `subject` is what one of `subjects` is called.
    pub(super) fn new(rounds: usize, subject: &'static str, subjects: impl Into<Vec<&'static str>>) -> Table {
        Table { rounds, subject, subjects: subjects.into(), rows: Vec::new() }
    }

    /// Adds a sample of the subject at `index`.
    pub(super) fn add(&mut self, name: &str, unit: Unit, index: usize, sample: u64) {
        let at = self.rows.iter().position(|row| row.name == name).unwrap_or_else(|| {
            self.rows.push(Row { name: name.to_owned(), unit, samples: vec![Vec::new(); self.subjects.len()] });
            self.rows.len() - 1
        });
        self.rows[at].samples[index].push(sample);
    }

    pub(super) fn markdown(&self) -> String {
        let mut text = format!("{}; medians of {} rounds (least to most)\n\n| measure |", processors(), self.rounds);
        for subject in &self.subjects {
            let _ = write!(text, " {subject} |");
        }
        for subject in &self.subjects[1..] {
            let _ = write!(text, " {} / {subject} |", self.subjects[0]);
        }
        let _ = writeln!(text, "\n|---|{}", "---|".repeat(2 * self.subjects.len() - 1));
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
            let subjects: Vec<Value> = self
                .subjects
                .iter()
                .zip(&row.samples)
                .map(|(subject, samples)| {
                    let median = (!samples.is_empty()).then(|| median(samples));
                    json!({ self.subject: subject, "median": median, "samples": samples })
                })
                .collect();
            json!({ "name": row.name, "unit": row.unit.name(), "subjects": subjects })
        };
        let rows: Vec<Value> = self.rows.iter().map(row).collect();
        format!("{:#}\n", json!({ "version": 2, "host": processors(), "rounds": self.rounds, "measures": rows }))
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
    fn ratio_is_that_of_the_medians() {
        let mut table = Table::new(3, "monitor", ["one", "other"]);
        for (index, samples) in [[1000, 9000, 2000], [4000, 4000, 4000]].iter().enumerate() {
            samples.iter().for_each(|sample| table.add("time", Unit::Microseconds, index, *sample));
        }
        let text = table.markdown();
        assert!(text.contains("| time | 2.0 ms (1.0 ms to 9.0 ms) | 4.0 ms (4.0 ms to 4.0 ms) | 0.50 |"), "{text}");
        assert!(text.contains("| measure | one | other | one / other |\n|---|---|---|---|\n"), "{text}");
    }

    #[test]
    fn measure_without_samples_is_not_zero() {
        let mut table = Table::new(1, "monitor", ["one", "other"]);
        table.add("time", Unit::Microseconds, 0, 1000);
        let text = table.markdown();
        assert!(text.contains("| time | 1.0 ms (1.0 ms to 1.0 ms) | - | - |"), "{text}");
        let document: serde_json::Value = serde_json::from_str(&table.json()).unwrap();
        let subjects = &document["measures"][0]["subjects"];
        assert_eq!((&subjects[0]["median"], &subjects[1]["median"]), (&1000.into(), &serde_json::Value::Null));
    }
}
