// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask bench`: measurements of the release build with the test images. Side by side with other monitors in the nested
//! runner, where every monitor has the same ordinary KVM; or alone, on this machine's.

mod boot;
mod conversion;
mod here;
mod memory;
mod product;
mod report;
mod side_by_side;
mod unit;

use crate::nested;
use anyhow::{Context, Result, bail};
use std::io::{self, Write};
use std::process::ExitCode;

/// Rounds of a comparison and runs of a measurement, unless others are asked for.
const ROUNDS: usize = 10;

/// `[here | side-by-side] [ROUNDS]`
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
        "nested" => in_the_nested_runner(rounds),
        _ => bail!("bench has no `{place}`: here, side-by-side, nested"),
    }
}

fn number(word: &str) -> Result<usize> {
    word.parse().ok().filter(|number| *number > 0).with_context(|| format!("`{word}` is no number of rounds"))
}

/// The comparison, in there.
fn in_the_nested_runner(rounds: usize) -> Result<ExitCode> {
    let words = [nested::XTASK, "bench", "side-by-side", &rounds.to_string()].map(str::to_owned);
    let status = nested::start(&nested::Options::new(words.to_vec()), &mut |bytes| io::stdout().write_all(bytes))?;
    eprintln!("also written to target/nested/out/bench.json");
    Ok(ExitCode::from(status))
}
