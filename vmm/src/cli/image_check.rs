// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `image check`: reads all of the local store and prints what is wrong.

use super::machines::{json_text, print};
use super::{table, words};
use crate::host::directories::Directories;
use crate::run::failure::{self, FailsAs as _, Failure};
use crate::run::progress::ProgressLine;
use crate::run::stored_image;
use crate::state::end::EndReason;
use clap::Args;
use registry::Checked;
use serde_json::json;

/// Status if something is wrong.
const STATUS_PROBLEMS: u8 = 1;

/// Check the local store: names, documents, and the digest of every blob
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  coracle image check

Exit status: 0 if nothing is wrong, 1 if something is, 125 if the store cannot \
be read. A damaged image is mended by `coracle rmi NAME` and `coracle pull NAME`.")]
pub(super) struct CheckArguments {
    /// Print one JSON object instead of lines
    #[arg(long)]
    json: bool,
}

/// Prints what is wrong and returns the exit status.
pub(super) fn check(arguments: &CheckArguments) -> u8 {
    match try_check() {
        Ok(checked) => {
            print(&render(&checked, arguments.json));
            if checked.problems.is_empty() { 0 } else { STATUS_PROBLEMS }
        }
        Err(failure) => failure::fail(&failure),
    }
}

fn try_check() -> Result<Checked, Failure> {
    let store = stored_image::store(&Directories::from_environment())?;
    let progress = ProgressLine::new();
    store
        .check(&|done, total| progress.show("reading the image store", Some((done, total))))
        .fails_as(EndReason::HostError)
}

fn render(checked: &Checked, json: bool) -> String {
    let Checked { names, blobs, bytes, unreferenced, unreferenced_bytes, problems } = checked;
    if json {
        let problem = |problem: &registry::Problem| json!({"subject": problem.subject, "detail": problem.detail});
        let document = json!({
            "ok": problems.is_empty(),
            "names": names,
            "blobs": blobs,
            "bytes": bytes,
            "unreferenced_blobs": unreferenced,
            "unreferenced_bytes": unreferenced_bytes,
            "problems": problems.iter().map(problem).collect::<Vec<_>>(),
        });
        return json_text(&document);
    }
    let line = |problem: &registry::Problem| {
        format!("{}: {}\n", table::cell(&problem.subject, None), table::cell(&problem.detail, None))
    };
    let mut text: String = problems.iter().map(line).collect();
    text += &format!("names {names}, blobs {blobs}, {}, problems {}\n", words::decimal_size(*bytes), problems.len());
    if *unreferenced > 0 {
        let size = words::decimal_size(*unreferenced_bytes);
        text += &format!("blobs without a name {unreferenced}, {size}; `coracle image prune` removes them\n");
    }
    text
}
