// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask hostile`: the table of the hostile guest against the binary under test, on this machine's KVM; then against one
//! with a planted fault at a time.

use anyhow::Result;
use coracle_tests::hostile::{Table, build_with_planted_faults};
use std::process::ExitCode;

pub(crate) fn run() -> Result<ExitCode> {
    let verdicts = Table::default().run().map_err(anyhow::Error::msg)?;
    verdicts.faults.iter().for_each(|fault| println!("{fault}"));
    println!("{} cases in {:.1} s", verdicts.cases, verdicts.elapsed.as_secs_f32());
    let program = build_with_planted_faults();
    let faults = planted_faults();
    let mut missed = 0;
    for fault in &faults {
        match Table::default().program(program.clone()).planted(fault).run() {
            Ok(verdicts) if verdicts.faults.is_empty() => {
                missed += 1;
                println!("{fault}: not found in {} cases", verdicts.cases);
            }
            Ok(verdicts) => println!("{fault}: {}", verdicts.faults[0]),
            Err(error) => {
                missed += 1;
                println!("{fault}: {error}");
            }
        }
    }
    let wedged = verdicts.faults.iter().filter(|fault| fault.starts_with("wedged")).count();
    let failed = verdicts.faults.len() - wedged;
    let found = faults.len() - missed;
    println!(
        "\n{} cases, {failed} failed, {wedged} wedged; {found} of {} planted faults found",
        verdicts.cases,
        faults.len()
    );
    Ok(if failed + wedged + missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Names of the variants.
fn planted_faults() -> Vec<&'static str> {
    let source = include_str!("../../../devices/src/planted.rs");
    source.lines().filter_map(|line| line.trim().strip_prefix("Self::")?.strip_suffix(',')).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn planted_faults_are_read_from_the_source() {
        let faults = super::planted_faults();
        assert!(faults.len() >= 10 && faults.contains(&"UsedLength"), "{faults:?}");
    }
}
