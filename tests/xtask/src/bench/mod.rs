// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask bench`: measurements of the release build with the test images. Side by side with other monitors in the nested
//! runner, where every monitor has the same ordinary KVM; or alone, on this machine's.

mod boot;
mod conversion;
mod here;
mod memory;
mod peers;
mod product;
mod report;
mod side_by_side;
mod unit;
mod verbs;

use crate::nested;
use anyhow::{Context, Result, bail};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Rounds of a comparison and runs of a measurement, unless others are asked for.
const ROUNDS: usize = 10;

/// `[here | side-by-side | verbs] [ROUNDS]`
pub(crate) fn run(words: &[String]) -> Result<ExitCode> {
    let (place, rounds) = match words {
        [] => ("nested", ROUNDS),
        [word] if word.starts_with(|first: char| first.is_ascii_digit()) => ("nested", number(word)?),
        [place] => (place.as_str(), ROUNDS),
        [place, rounds] => (place.as_str(), number(rounds)?),
        _ => bail!("bench takes a place and a number"),
    };
    match place {
        "here" => here::run(rounds),
        "side-by-side" => side_by_side::run(rounds),
        "verbs" => verbs::run(rounds),
        "nested" => in_the_nested_runner(rounds),
        _ => bail!("bench has no `{place}`: here, side-by-side, verbs, nested"),
    }
}

fn number(word: &str) -> Result<usize> {
    word.parse().ok().filter(|number| *number > 0).with_context(|| format!("`{word}` is no number of rounds"))
}

/// The comparison and the verbs, in there.
fn in_the_nested_runner(rounds: usize) -> Result<ExitCode> {
    let script = format!("{0} bench side-by-side {rounds} && {0} bench verbs {rounds}", nested::XTASK);
    let command = ["sh", "-c", &script].map(str::to_owned).to_vec();
    let options =
        nested::Options { files: peers::Peers::of_the_environment()?.files(), ..nested::Options::new(command) };
    let status = nested::start(&options, &mut |bytes| io::stdout().write_all(bytes))?;
    if status == 0 {
        eprintln!("also written to target/nested/out/bench.json and bench-verbs.json");
    }
    Ok(ExitCode::from(status))
}

/// Where results go: what the nested runner hands over, or the target folder.
fn out_folder() -> PathBuf {
    std::env::var_os("CORACLE_OUT").map_or_else(|| Path::new("target").to_owned(), PathBuf::from)
}
