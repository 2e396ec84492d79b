// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `history`, also `image history`: the steps that made an image, with the sizes of their layers.

use super::images::{describe, find};
use super::machines::{json_text, print};
use super::{table, words};
use crate::config::platform::PlatformChoice;
use crate::host::directories::Directories;
use crate::run::failure::{self, Failure};
use crate::run::stored_image;
use clap::Args;
use jiff::Timestamp;
use registry::Description;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Characters of a command in the table.
const MAX_COMMAND: usize = 45;

/// Show the steps that made an image, the last first
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  coracle history alpine")]
pub(super) struct HistoryArguments {
    /// The image
    #[arg(value_name = "NAME")]
    name: String,
    /// Of an image for several platforms, this one
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<PlatformChoice>,
    /// Show complete commands
    #[arg(long)]
    no_trunc: bool,
    /// Print one JSON array instead of a table
    #[arg(long)]
    json: bool,
}

/// A step, as JSON.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Step {
    created: Option<String>,
    created_by: String,
    comment: String,
    /// Digest of the layer; none of a step that changed no file.
    layer: Option<String>,
    size: u64,
}

/// A step in the configuration.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Entry {
    created: Option<String>,
    created_by: Option<String>,
    comment: Option<String>,
    empty_layer: Option<bool>,
}

/// Prints the steps and returns the exit status.
pub(super) fn history(arguments: &HistoryArguments) -> u8 {
    match try_history(arguments) {
        Ok(steps) => {
            print(&render(&steps, arguments, SystemTime::now()));
            0
        }
        Err(failure) => failure::fail(&failure),
    }
}

fn try_history(arguments: &HistoryArguments) -> Result<Vec<Step>, Failure> {
    let store = stored_image::store(&Directories::from_environment())?;
    let image = find(&store, &arguments.name)?;
    let platform = arguments.platform.as_ref().map(PlatformChoice::get).unwrap_or_default();
    Ok(steps(&describe(&store, &image, &platform)?))
}

/// Layers that the history does not have come last.
fn steps(image: &Description) -> Vec<Step> {
    let entries = image.document.get("history").cloned().unwrap_or(Value::Null);
    let entries: Vec<Entry> = serde_json::from_value(entries).unwrap_or_default();
    let mut layers = image.layers.iter();
    let mut steps: Vec<Step> = Vec::new();
    for entry in entries {
        let layer = if entry.empty_layer == Some(true) { None } else { layers.next() };
        steps.push(Step {
            created: entry.created,
            created_by: entry.created_by.unwrap_or_default(),
            comment: entry.comment.unwrap_or_default(),
            layer: layer.map(|layer| layer.digest.to_string()),
            size: layer.map_or(0, |layer| layer.size),
        });
    }
    steps.extend(layers.map(|layer| Step {
        layer: Some(layer.digest.to_string()),
        size: layer.size,
        ..Step::default()
    }));
    steps.reverse();
    steps
}

fn render(steps: &[Step], arguments: &HistoryArguments, now: SystemTime) -> String {
    if arguments.json {
        return json_text(steps);
    }
    let limit = (!arguments.no_trunc).then_some(MAX_COMMAND);
    let rows: Vec<[String; 4]> = steps
        .iter()
        .map(|step| {
            [
                step.created.as_deref().map_or_else(String::new, |created| age(created, now)),
                table::cell(&step.created_by, limit),
                words::decimal_size(step.size),
                table::cell(&step.comment, limit),
            ]
        })
        .collect();
    table::render(["CREATED", "CREATED BY", "SIZE", "COMMENT"], &rows)
}

/// A time that is malformed is shown as it is.
fn age(created: &str, now: SystemTime) -> String {
    let Ok(time) = created.parse::<Timestamp>() else { return table::cell(created, Some(MAX_COMMAND)) };
    let time = Duration::from_secs(time.as_second().max(0).unsigned_abs());
    let age = now.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(time);
    format!("{} ago", words::duration(age))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_image::{Digest, Reference};
    use serde_json::json;

    fn description(document: Value) -> Description {
        let blob = |text: &str| Reference { digest: Digest::of(text.as_bytes()), size: text.len() as u64 };
        let layers = vec![blob("one"), blob("two")];
        Description { manifest: Digest::of(b"m"), config: blob("c"), document, layers }
    }

    #[test]
    fn steps_have_their_layers_the_last_first() {
        let document = json!({"history": [
            {"created": "2026-11-01T00:00:00Z", "created_by": "ADD rootfs"},
            {"created_by": "CMD\t[sh]", "empty_layer": true, "comment": "buildkit"},
        ]});
        let found = steps(&description(document));
        let layers: Vec<_> =
            found.iter().map(|step| (step.created_by.as_str(), step.size, step.layer.is_some())).collect();
        assert_eq!(layers, [("", 3, true), ("CMD\t[sh]", 0, false), ("ADD rootfs", 3, true)]);
        let arguments = HistoryArguments { name: String::new(), platform: None, no_trunc: false, json: false };
        let table = render(&found, &arguments, UNIX_EPOCH + Duration::from_secs(1_794_700_800));
        let lines: Vec<&str> = table.lines().map(str::trim_end).collect();
        assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["CREATED", "CREATED", "BY", "SIZE", "COMMENT"]);
        assert!(lines[2].contains("CMD [sh]") && lines[2].ends_with("buildkit"), "{table}");
        assert!(lines[3].starts_with("2 weeks ago"), "{table}");
    }

    #[test]
    fn malformed_history_still_shows_the_layers() {
        for document in [json!({}), json!({"history": "none"}), json!({"history": null})] {
            assert_eq!(steps(&description(document)).len(), 2);
        }
    }
}
