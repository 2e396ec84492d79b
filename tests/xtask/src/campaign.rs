// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask campaign`: one fault many times, on this machine's KVM, and a table of what became of it.

use anyhow::{Context, Result, bail, ensure};
use coracle_tests::campaign::{self, Fault, Report};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const KILLS: usize = 1000;
const FAULTS: usize = 2000;
const DURABILITY: usize = 1000;
const BLOCKS: usize = 10_000;
const MACHINES: usize = 50;
const MINUTES: usize = 30;

#[derive(Debug, Default)]
struct Options {
    count: Option<usize>,
    minutes: Option<usize>,
    seed: Option<u64>,
    only: Option<Fault>,
}

impl Options {
    fn parse(words: &[String]) -> Result<Options> {
        let mut options = Options::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} needs a value"));
            match word.as_str() {
                "--seed" => options.seed = Some(value()?.parse().context("--seed")?),
                "--only" => options.only = Some(value()?.parse().map_err(anyhow::Error::msg)?),
                number => {
                    let place = if options.count.is_none() { &mut options.count } else { &mut options.minutes };
                    ensure!(place.is_none(), "unexpected `{number}`");
                    *place = Some(number.parse().with_context(|| format!("invalid count '{number}'"))?);
                }
            }
        }
        Ok(options)
    }
}

pub(crate) fn run(words: &[String]) -> Result<ExitCode> {
    let (name, words) = words.split_first().context("which campaign? kill, faults, durability, blocks, machines")?;
    let Options { count, minutes, seed, only } = Options::parse(words)?;
    ensure!(name == "machines" || minutes.is_none(), "minutes are a number of the campaign machines");
    // The table of the end has all of each failure.
    std::panic::set_hook(Box::new(|panic| {
        let text = panic.to_string();
        eprintln!("failed: {}", text.lines().nth(1).unwrap_or_default());
    }));
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let seed = seed.unwrap_or_else(now);
    println!("campaign {name}, seed {seed}");
    let report = match name.as_str() {
        "kill" | "durability" | "blocks" | "machines" if only.is_some() => bail!("--only is an option of faults"),
        "kill" => campaign::kill(count.unwrap_or(KILLS), seed),
        "faults" => campaign::faults(count.unwrap_or(FAULTS), seed, only),
        "durability" => campaign::durability(count.unwrap_or(DURABILITY), seed),
        "blocks" => campaign::blocks(count.unwrap_or(BLOCKS)),
        "machines" => {
            let time = Duration::from_secs(60 * minutes.unwrap_or(MINUTES) as u64);
            campaign::machines(count.unwrap_or(MACHINES), time)
        }
        _ => bail!("unknown campaign `{name}`; the campaigns are: kill, faults, durability, blocks, machines"),
    };
    print(&report);
    Ok(if report.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(report: &Report) {
    for (outcome, count) in &report.outcomes {
        println!("{count:>7}  {outcome}");
    }
    for failure in &report.failures {
        println!("\nFAILED: cargo xtask campaign {}\n    {}", failure.repeat, failure.what.replace('\n', "\n    "));
    }
    println!("\n{} repetitions, {} failures", report.repetitions, report.failures.len());
}

#[cfg(test)]
mod tests {
    use super::Options;

    fn parse(text: &str) -> anyhow::Result<Options> {
        Options::parse(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn count_seed_and_fault_are_parsed() {
        let options = parse("7 --seed 9 --only read:2:EIO").unwrap();
        assert_eq!((options.count, options.seed), (Some(7), Some(9)));
        assert_eq!(options.only.map(|fault| fault.to_string()).as_deref(), Some("read:2:EIO"));
        let options = parse("50 30").unwrap();
        assert_eq!((options.count, options.minutes), (Some(50), Some(30)));
        for invalid in ["x", "1 2 3", "--seed", "--seed x", "--only read", "--what"] {
            assert!(parse(invalid).is_err(), "{invalid}");
        }
    }
}
