// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `cargo xtask bench side-by-side`: coracle and QEMU's microvm machine with the same kernel, initramfs, root disk and command, in
//! turns in each round; and Firecracker and Cloud Hypervisor, where the environment names their binaries, with the same root disk
//! and command, and with as much of the rest as they can run.

mod cloud_hypervisor;
mod control;
mod coracle;
mod fio;
mod firecracker;
mod guest;
pub(super) mod network;
mod passt;
mod process;
mod qemu;
mod roots;
mod serial_guest;
mod tap;

use super::memory;
use super::peers::Peers;
use super::table::Table;
use super::unit::Unit;
use anyhow::{Context, Result, ensure};
use cloud_hypervisor::CloudHypervisor;
use coracle::Coracle;
use firecracker::Firecracker;
use guest::{Guest, Outcome};
use process::Process;
use qemu::Qemu;
use roots::Roots;
use std::process::ExitCode;

trait Monitor {
    fn name(&self) -> &'static str;
    /// Whether its guest writes to a serial port: the rate would be that of the port's emulation, byte by byte.
    fn by_serial_port(&self) -> bool {
        false
    }
    fn start(&self, guest: &Guest) -> Result<Process>;
}

/// What a workload writes to its standard output, 64 KiB at a time.
const FLOOD_BYTES: u64 = 64 << 20;

pub(super) fn run(rounds: usize) -> Result<ExitCode> {
    compare(rounds, "bench.json", &mut |monitors, table| measure(monitors, rounds, table))
}

/// What is measured of the monitors, into the table.
type Measure<'a> = &'a mut dyn FnMut(&[&dyn Monitor], &mut Table) -> Result<()>;

/// Calls `measure` with all monitors that there are, coracle and QEMU first, prints the table, and writes it to the file `name` too.
fn compare(rounds: usize, name: &str, measure: Measure) -> Result<ExitCode> {
    with_monitors(&mut |monitors| {
        let names: Vec<_> = monitors.iter().map(|monitor| monitor.name()).collect();
        let mut table = Table::new(rounds, "monitor", names);
        measure(monitors, &mut table)?;
        report(&table, name)
    })
}

/// Prints the table, and writes it to the file `name` too.
fn report(table: &Table, name: &str) -> Result<ExitCode> {
    println!("{}", table.markdown());
    let path = super::out_directory().join(name);
    std::fs::write(&path, table.json()).with_context(|| path.display().to_string())?;
    Ok(ExitCode::SUCCESS)
}

fn with_monitors(work: &mut dyn FnMut(&[&dyn Monitor]) -> Result<ExitCode>) -> Result<ExitCode> {
    let peers = Peers::of_the_environment()?;
    let coracle = Coracle::find()?;
    let roots = Roots::of(&coracle)?;
    let qemu = Qemu::of(&coracle, &roots)?;
    let firecracker = peers.firecracker.map(|binary| Firecracker::new(binary, &coracle, &roots));
    let cloud_hypervisor = peers.cloud_hypervisor.map(|files| CloudHypervisor::new(files, &roots));
    let mut monitors: Vec<&dyn Monitor> = vec![&coracle, &qemu];
    monitors.extend(firecracker.iter().map(|monitor| monitor as &dyn Monitor));
    monitors.extend(cloud_hypervisor.iter().map(|monitor| monitor as &dyn Monitor));
    work(&monitors)
}

fn measure(monitors: &[&dyn Monitor], rounds: usize, table: &mut Table) -> Result<()> {
    let echo = Guest::new("busybox", &["echo", "x"]);
    // Not counted: converts the image and fills caches.
    each(monitors, 0, &mut |_, monitor| monitor.start(&echo)?.finish("x").map(drop))?;
    for round in 0..rounds {
        eprintln!("start and end: round {}", round + 1);
        each(monitors, round, &mut |index, monitor| {
            let Outcome { first_byte_us, end_us, cpu_us, .. } = monitor.start(&echo)?.finish("x")?;
            table.add("process start to the workload's first byte", Unit::Microseconds, index, first_byte_us);
            table.add("process start to process end", Unit::Microseconds, index, end_us);
            table.add("CPU time of the process, start to end", Unit::Microseconds, index, cpu_us);
            Ok(())
        })?;
    }
    let idle = Guest::new("busybox", &["sh", "-c", "echo up; exec sleep 1000"]);
    for round in 0..rounds {
        eprintln!("memory: round {}", round + 1);
        each(monitors, round, &mut |index, monitor| {
            let mut process = monitor.start(&idle)?;
            process.wait_for_output("up")?;
            let memory = memory::of_process(process.pid())?;
            table.add("resident memory without guest pages", Unit::Bytes, index, memory.own_bytes);
            table.add("guest pages of 128 MiB, idle", Unit::Bytes, index, memory.guest_bytes);
            Ok(())
        })?;
    }
    let script = format!("exec dd if=/dev/zero bs=64k count={} 2> /dev/null", FLOOD_BYTES >> 16);
    let flood = Guest::new("busybox", &["sh", "-c", &script]);
    for round in 0..rounds {
        eprintln!("standard output: round {}", round + 1);
        each(monitors, round, &mut |index, monitor| {
            if monitor.by_serial_port() {
                return Ok(());
            }
            let (bytes, time_us) = monitor.start(&flood)?.drain()?;
            ensure!(bytes == FLOOD_BYTES, "{bytes} bytes of {FLOOD_BYTES} arrived");
            table.add("the workload's standard output", Unit::BytesPerSecond, index, bytes * 1_000_000 / time_us);
            Ok(())
        })?;
    }
    let directory = tempfile::tempdir()?;
    let disk = fio::disk(directory.path())?;
    let fio = Guest { memory_mib: 256, disk: Some(disk), ..Guest::new("fio", &["sh", "-c", &fio::script()]) };
    for round in 0..rounds {
        eprintln!("fio: round {}", round + 1);
        each(monitors, round, &mut |index, monitor| {
            let outcome = monitor.start(&fio)?.finish(fio::BEGINNING)?;
            for job in fio::read(&String::from_utf8_lossy(&outcome.stdout)).with_context(|| monitor.name())? {
                table.add(&format!("fio, {}", job.name), Unit::BytesPerSecond, index, job.bytes_per_second);
            }
            table.add("CPU time of the process, all of fio", Unit::Microseconds, index, outcome.cpu_us);
            Ok(())
        })?;
    }

    Ok(())
}

/// Calls `measure` for each monitor with its column in the table, starting with another monitor in each round.
fn each(
    monitors: &[&dyn Monitor],
    round: usize,
    measure: &mut dyn FnMut(usize, &dyn Monitor) -> Result<()>,
) -> Result<()> {
    for step in 0..monitors.len() {
        let index = (step + round) % monitors.len();
        measure(index, monitors[index]).with_context(|| monitors[index].name())?;
    }
    Ok(())
}
