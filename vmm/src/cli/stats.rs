// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The verb `stats`: prints the resource use of machines, once or each second.

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

/// Time between two samples.
const INTERVAL: Duration = Duration::from_secs(1);

/// Show the resource use of machines
#[derive(Debug, Args)]
#[command(after_help = "\
CPU % is of one processor: a machine with two busy vCPUs has 200 %.

Examples:
  coracle stats
  coracle stats --no-stream --json web")]
pub(super) struct StatsArguments {
    /// Names or container IDs of machines, or unambiguous beginnings [default: all
    /// running machines]
    #[arg(value_name = "MACHINE")]
    machines: Vec<String>,
    /// Show one sample
    #[arg(long)]
    no_stream: bool,
    /// Print one JSON array per sample in place of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    run_dir: RunDirArgument,
}

/// A machine that is sampled.
struct Sampled {
    machine: MachineInfo,
    client: Client,
    last: Stats,
}

/// Container ID, previous and current statistics.
type Sample = (String, Stats, Stats);

/// Returns the exit status.
pub(super) fn stats(arguments: &StatsArguments) -> u8 {
    let found: Result<Vec<MachineInfo>, Failure> = if arguments.machines.is_empty() {
        arguments.run_dir.machines().map(|machines| machines.into_iter().filter(|one| !one.has_ended()).collect())
    } else {
        arguments.machines.iter().map(|machine| arguments.run_dir.find(machine)).collect()
    };
    let machines = match found {
        Ok(machines) => machines,
        Err(failure) => return failure::fail(&failure),
    };
    let mut status = 0;
    let mut sampled = Vec::new();
    for machine in machines {
        let first = connect(&machine).and_then(|mut client| sample(&machine, &mut client).map(|last| (client, last)));
        match first {
            Ok((client, last)) => sampled.push(Sampled { machine, client, last }),
            // Unnamed machines may have ended meanwhile, or not listen yet.
            Err(_) if arguments.machines.is_empty() => {}
            Err(failure) => status = failure::fail(&failure),
        }
    }
    // Without machines, the head of the table is printed.
    loop {
        if !sampled.is_empty() {
            sleep(INTERVAL);
        }
        let mut samples = Vec::new();
        sampled.retain_mut(|one| match sample(&one.machine, &mut one.client) {
            Ok(now) => {
                let last = std::mem::replace(&mut one.last, now.clone());
                samples.push((one.machine.short_id().to_owned(), last, now));
                true
            }
            Err(_) => false,
        });
        print(&if arguments.json { json(&samples) } else { screen(&samples, !arguments.no_stream) });
        if arguments.no_stream || sampled.is_empty() {
            return status;
        }
    }
}

fn sample(machine: &MachineInfo, client: &mut Client) -> Result<Stats, Failure> {
    client.request("GET", "/v1/stats", &()).map_err(|error| machine_failure(machine, error))
}

fn json(samples: &[Sample]) -> String {
    let now: Vec<&Stats> = samples.iter().map(|(_, _, now)| now).collect();
    serde_json::to_string(&now).expect("keys are strings, numbers are finite") + "\n"
}

/// The table. `repeats` replaces the last one on a terminal.
fn screen(samples: &[Sample], repeats: bool) -> String {
    let titles = ["CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "BLOCK I/O", "PIDS"];
    let rows: Vec<_> = samples.iter().map(|(id, last, now)| row(id, last, now)).collect();
    let home = if repeats && isatty(std::io::stdout()) { "\x1b[H\x1b[2J" } else { "" };
    format!("{home}{}", table::render(titles, &rows))
}

#[allow(clippy::cast_precision_loss, reason = "a few digits are shown")]
fn row(container_id: &str, last: &Stats, now: &Stats) -> [String; 8] {
    let cpu = |stats: &Stats| stats.counters.cpu_vcpu_ns + stats.counters.cpu_vmm_ns;
    let time = now.time.duration_since(last.time).unwrap_or_default().as_nanos().max(1);
    let cpu = cpu(now).saturating_sub(cpu(last)) as f64 * 100.0 / time as f64;
    let memory = now.counters.memory_resident_bytes;
    let share = memory as f64 * 100.0 / now.memory_bytes.max(1) as f64;
    let pair = |one: u64, other: u64| format!("{} / {}", words::decimal_size(one), words::decimal_size(other));
    let devices = &now.counters.devices;
    [
        container_id.to_owned(),
        now.id.clone(),
        format!("{cpu:.2}%"),
        format!("{} / {}", words::binary_size(memory), words::binary_size(now.memory_bytes)),
        format!("{share:.2}%"),
        pair(devices.sum("nets", "rx_bytes"), devices.sum("nets", "tx_bytes")),
        pair(devices.sum("disks", "read_bytes"), devices.sum("disks", "write_bytes")),
        // The host does not see the processes of the guest.
        "--".to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::counters::{Counters, DeviceLists};
    use std::time::UNIX_EPOCH;

    #[test]
    fn row_has_the_rate_between_samples_and_the_last_sums() {
        let stats = |seconds: u64, cpu: u64, read: u64| Stats {
            id: "web".into(),
            time: UNIX_EPOCH + Duration::from_secs(seconds),
            cpus: 2,
            memory_bytes: 128 << 20,
            counters: Counters {
                cpu_vcpu_ns: cpu,
                cpu_vmm_ns: 0,
                memory_resident_bytes: 64 << 20,
                devices: (0..2).fold(DeviceLists::default(), |mut devices, _| {
                    devices.push("disks", vec![("read_bytes", read)]);
                    devices
                }),
            },
        };
        let row = row("0123456789ab", &stats(1, 1_000_000_000, 0), &stats(3, 4_000_000_000, 1_500_000));
        assert_eq!(row[..2], ["0123456789ab", "web"]);
        assert_eq!(row[2..7], ["150.00%", "64MiB / 128MiB", "50.00%", "0B / 0B", "3MB / 0B"]);
    }
}
