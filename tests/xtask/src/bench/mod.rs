// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask bench`: measurements of the release build with the test images, in the nested runner, where every monitor has the
//! same native KVM, or on this machine's KVM.

mod boot;
mod boot_stages;
mod comparison;
mod conversion;
mod here;
mod images;
mod memory;
mod peers;
mod product;
mod report;
mod side_by_side;
mod table;
mod unit;
mod verbs;

use crate::nested;
use anyhow::{Context, Result, bail};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Rounds of a measurement by default.
const ROUNDS: usize = 10;

/// `[here | images | side-by-side | network[-tap | -user | -adopt] | verbs | stages] [ROUNDS] [--old PATH]`
pub(crate) fn run(words: &[String]) -> Result<ExitCode> {
    let (words, old) = match words {
        [words @ .., option, path] if option == "--old" => (words, Some(PathBuf::from(path))),
        words => (words, None),
    };
    let (what, rounds) = match words {
        [] => ("nested", ROUNDS),
        [word] if word.starts_with(|first: char| first.is_ascii_digit()) => ("nested", number(word)?),
        [what] if what == "images" => (what.as_str(), images::ROUNDS),
        [what] => (what.as_str(), ROUNDS),
        [what, rounds] => (what.as_str(), number(rounds)?),
        _ => bail!("bench takes what to measure and a number of rounds"),
    };
    match what {
        "here" => here::run(rounds, old.or_else(old_of_the_environment).as_deref()),
        _ if old.is_some() => bail!("--old needs `here`"),
        "images" => images::run(rounds),
        "side-by-side" => side_by_side::run(rounds),
        "network" => side_by_side::network::run(rounds),
        "network-tap" => side_by_side::network::on_a_tap(rounds),
        "network-user" => side_by_side::network::on_passt(rounds),
        "network-adopt" => side_by_side::network::on_an_interface(rounds),
        "verbs" => verbs::run(rounds),
        "stages" => boot_stages::run(rounds),
        "nested" => in_the_nested_runner(rounds),
        _ => bail!(
            "bench has no `{what}`: here, images, side-by-side, network, network-tap, network-user, network-adopt, verbs, stages, nested"
        ),
    }
}

fn old_of_the_environment() -> Option<PathBuf> {
    std::env::var_os("BENCH_OLD").filter(|path| !path.is_empty()).map(PathBuf::from)
}

fn number(word: &str) -> Result<usize> {
    word.parse().ok().filter(|number| *number > 0).with_context(|| format!("`{word}`: not a number of rounds"))
}

fn in_the_nested_runner(rounds: usize) -> Result<ExitCode> {
    let script = "for what in side-by-side network verbs stages; do \"$0\" bench $what \"$1\" || exit; done";
    let command = ["sh", "-c", script, nested::XTASK, &rounds.to_string()].map(str::to_owned).to_vec();
    let options =
        nested::Options { files: peers::Peers::of_the_environment()?.files(), ..nested::Options::new(command) };
    let status = nested::start(&options, &mut |bytes| io::stdout().write_all(bytes))?;
    if status == 0 {
        eprintln!(
            "also written to target/nested/out: bench.json, bench-network.json, bench-verbs.json, boot-stages.json"
        );
        boot_stages::draw()?;
    }
    Ok(ExitCode::from(status))
}

/// Where results are written to: the directory that the nested runner copies out, or the target directory.
fn out_directory() -> PathBuf {
    std::env::var_os("CORACLE_OUT").map_or_else(|| Path::new("target").to_owned(), PathBuf::from)
}
