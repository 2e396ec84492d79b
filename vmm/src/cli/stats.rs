// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `stats`: what machines use, now and each second.

use super::machines::{RunDirArgument, connect, machine_failure, print};
use super::{table, words};
use crate::api::client::Client;
use crate::api::control_socket::Stats;
use crate::run::failure::{self, Failure};
use crate::state::machines::MachineInfo;
use clap::Args;
use rustix::termios::isatty;
use std::thread::sleep;
use std::time::Duration;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Show what machines use
#[derive(Debug, Args)]
#[command(after_help = "\
CPU % is of one processor: a machine with two busy vCPUs has 200 %.

Examples:
  coracle stats
  coracle stats --no-stream --json web")]
pub(super) struct StatsArguments {
    /// Names of machines, or beginnings of them that no other has [default: all that run]
    #[arg(value_name = "MACHINE")]
    machines: Vec<String>,
    /// Show it once
    #[arg(long)]
    no_stream: bool,
    /// One JSON array a look instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    run_dir: RunDirArgument,
}

/// A machine that is looked at.
struct Looked {
    entry: MachineInfo,
    client: Client,
    last: Stats,
}

/// Shows and returns the exit status.
pub(super) fn stats(arguments: &StatsArguments) -> u8 {
    let wanted: Result<Vec<MachineInfo>, Failure> = if arguments.machines.is_empty() {
        arguments.run_dir.machines().map(|entries| entries.into_iter().filter(|entry| !entry.has_ended()).collect())
    } else {
        arguments.machines.iter().map(|machine| arguments.run_dir.find(machine)).collect()
    };
    let wanted = match wanted {
        Ok(wanted) => wanted,
        Err(failure) => return failure::fail(&failure),
    };
    let mut status = 0;
    let mut looked = Vec::new();
    for entry in wanted {
        let first = connect(&entry).and_then(|mut client| look(&entry, &mut client).map(|last| (client, last)));
        match first {
            Ok((client, last)) => looked.push(Looked { entry, client, last }),
            // One of all that has ended meanwhile, or does not listen yet, is not among them.
            Err(_) if arguments.machines.is_empty() => {}
            Err(failure) => status = failure::fail(&failure),
        }
    }
    // With nothing to show there is still the head of the table.
    loop {
        if !looked.is_empty() {
            sleep(INTERVAL);
        }
        let mut shown = Vec::new();
        looked.retain_mut(|one| match look(&one.entry, &mut one.client) {
            Ok(now) => {
                let last = std::mem::replace(&mut one.last, now.clone());
                shown.push((last, now));
                true
            }
            Err(_) => false,
        });
        print(&if arguments.json { json(&shown) } else { screen(&shown, !arguments.no_stream) });
        if arguments.no_stream || looked.is_empty() {
            return status;
        }
    }
}

fn look(entry: &MachineInfo, client: &mut Client) -> Result<Stats, Failure> {
    client.request("GET", "/v1/stats", &()).map_err(|error| machine_failure(entry, error))
}

fn json(shown: &[(Stats, Stats)]) -> String {
    let now: Vec<&Stats> = shown.iter().map(|(_, now)| now).collect();
    serde_json::to_string(&now).expect("the keys are strings and the numbers finite") + "\n"
}

/// The table; on a terminal in the place of the last one.
fn screen(shown: &[(Stats, Stats)], again: bool) -> String {
    let titles = ["CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"];
    let rows: Vec<_> = shown.iter().map(|(last, now)| row(last, now)).collect();
    let home = if again && isatty(std::io::stdout()) { "\x1b[H\x1b[2J" } else { "" };
    format!("{home}{}", table::render(titles, &rows))
}

#[allow(clippy::cast_precision_loss, reason = "a few digits are shown")]
fn row(last: &Stats, now: &Stats) -> [String; 8] {
    let cpu = |stats: &Stats| stats.counters.cpu_vcpu_ns + stats.counters.cpu_vmm_ns;
    let time = now.time.duration_since(last.time).unwrap_or_default().as_nanos().max(1);
    let cpu = cpu(now).saturating_sub(cpu(last)) as f64 * 100.0 / time as f64;
    let memory = now.counters.memory_resident_bytes;
    let share = memory as f64 * 100.0 / now.memory_bytes.max(1) as f64;
    let pair = |one: u64, other: u64| format!("{} / {}", words::decimal_size(one), words::decimal_size(other));
    let nets = &now.counters.nets;
    let disks = &now.counters.disks;
    [
        now.id.clone(),
        now.id.clone(),
        format!("{cpu:.2}%"),
        format!("{} / {}", words::binary_size(memory), words::binary_size(now.memory_bytes)),
        format!("{share:.2}%"),
        pair(nets.iter().map(|net| net.rx_bytes).sum(), nets.iter().map(|net| net.tx_bytes).sum()),
        pair(disks.iter().map(|disk| disk.read_bytes).sum(), disks.iter().map(|disk| disk.write_bytes).sum()),
        // Processes of the guest are not the host's to count.
        "--".to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::counters::{Counters, DiskCounts};
    use std::time::UNIX_EPOCH;

    #[test]
    fn a_row_has_the_rate_between_two_looks_and_the_sums_of_the_last() {
        let stats = |seconds: u64, cpu: u64, read: u64| Stats {
            id: "web".into(),
            time: UNIX_EPOCH + Duration::from_secs(seconds),
            cpus: 2,
            memory_bytes: 128 << 20,
            counters: Counters {
                cpu_vcpu_ns: cpu,
                cpu_vmm_ns: 0,
                memory_resident_bytes: 64 << 20,
                disks: vec![DiskCounts { read_bytes: read, ..DiskCounts::default() }; 2],
                nets: Vec::new(),
            },
        };
        let row = row(&stats(1, 1_000_000_000, 0), &stats(3, 4_000_000_000, 1_500_000));
        assert_eq!(row[2..7], ["150.00%", "64MiB / 128MiB", "50.00%", "0B / 0B", "3MB / 0B"]);
    }
}
