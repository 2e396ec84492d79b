// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Guests that abuse their devices or the control port, and a disk that hangs: the end comes in time, others are served, and what the host keeps
//! stays bounded.

use crate::hostile_clients::own_memory;
use crate::life_cycle::status;
use coracle_tests::hostile::Table;
use coracle_tests::{Case, Running, TestDir, case, compile, file_system, hanging_thread, image};
use rustix::process::Signal;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// For a slow host, beyond the time that the product promises.
const SLACK: Duration = Duration::from_secs(10);

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Quick[EachKvm], devices_refuse_what_is_wrong_and_serve_the_next_request),
        case!(Full, unrequested_report_ends_the_run_with_guest_fault),
        case!(Full, flood_of_reports_delays_neither_status_nor_stop),
        case!(Full[Root], disk_that_hangs_does_not_delay_the_end),
        case!(Full, kernel_starts_no_program_of_the_workload_beside_pid_1),
    ]
}

/// `cargo xtask hostile` runs every case, and plants faults. The number shares no factor with those of most rows' values.
fn devices_refuse_what_is_wrong_and_serve_the_next_request() {
    let verdicts = Table::default().every(7).run().unwrap_or_else(|error| panic!("{error}"));
    assert!(verdicts.faults.is_empty(), "of {} cases:\n{}", verdicts.cases, verdicts.faults.join("\n"));
    assert!(verdicts.cases >= 600, "{} cases", verdicts.cases);
}

/// A machine whose init floods the control port with health reports.
fn flooding(dir: &TestDir, options: &[&str]) -> Running {
    let protocol = include_str!("../../boot/protocol/src/protocol.rs");
    let version = protocol.split("pub const VERSION: u32 = ").nth(1).and_then(|rest| rest.split(';').next());
    let version = format!("PROTOCOL_VERSION={}", version.expect("the protocol has a version"));
    let init = compile("flooding_init").display().to_string();
    let image = image("busybox");
    dir.start(&[options, &["--name", "m", "--init-binary", &init, "--append", &version, &image, "true"]].concat())
}

fn unrequested_report_ends_the_run_with_guest_fault() {
    let dir = TestDir::new().keeping_machines();
    let run = flooding(&dir, &["--no-healthcheck"]).finish();
    run.assert_status(125).assert_reason("guest-fault").assert_one_line_naming(&["init", "Health"]);
}

fn flood_of_reports_delays_neither_status_nor_stop() {
    let dir = TestDir::new().keeping_machines();
    let run = flooding(&dir, &["--health-cmd", "true", "--stop-timeout", "2"]);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !dir.run_directory().join("m/control.sock").exists() || status(&dir, "m")["health"]["status"] != "healthy" {
        assert!(Instant::now() < deadline, "no health report arrived");
        std::thread::sleep(Duration::from_millis(100));
    }
    let sequence = || status(&dir, "m")["sequence"].as_u64().expect("a number");
    let (first, memory, start) = (sequence(), own_memory(run.pid()), Instant::now());
    std::thread::sleep(Duration::from_secs(3));
    let (changes, seconds) = (sequence() - first, start.elapsed().as_secs() + 1);
    assert!(changes <= 10 * seconds, "{changes} changes of the status in {seconds} s");
    assert!(own_memory(run.pid()) < memory + 4096, "memory grows");
    let start = Instant::now();
    run.signal(Signal::TERM);
    run.finish().assert_status(137).assert_reason("killed");
    assert!(start.elapsed() < Duration::from_secs(3) + SLACK, "the end took {:?}", start.elapsed());
}

fn disk_that_hangs_does_not_delay_the_end() {
    let dir = TestDir::new().keeping_machines();
    let script = "trap 'exit 3' TERM; echo up; while :; do sleep 1000 & wait $!; done";
    let mut run = dir.start(&["--id", "m", "--stop-timeout", "2", &image("busybox"), "sh", "-c", script]);
    run.wait_for_stdout("up\n");
    // It is not kept, and its files can be read nevertheless.
    dir.verb("exec", &["m", "sh", "-c", "echo hi > /new"]).finish().assert_status(0);
    dir.verb("diff", &["m"]).finish().assert_status(0).assert_stdout("A /new\n");
    // The scratch disk is not synced at the end, so the workload's own end is reported.
    let mut hanging = Command::new(hanging_thread());
    hanging.args([&run.pid().to_string(), "disk-1"]).stdout(Stdio::piped());
    let mut hanging = hanging.spawn().expect("a program of the tests starts");
    let mut line = String::new();
    let output = hanging.stdout.take().expect("it is a pipe");
    BufReader::new(output).read_line(&mut line).expect("a pipe can be read");
    assert_eq!(line, "stopped\n");
    // The guest cannot write its files, so this ends with the machine.
    let diff = dir.verb("diff", &["m"]).start();
    let start = Instant::now();
    run.signal(Signal::TERM);
    let run = run.finish();
    diff.finish().assert_status(125).assert_one_line_naming(&["m"]);
    run.assert_status(3).assert_reason("stopped");
    assert!(start.elapsed() < Duration::from_secs(7) + SLACK, "the end took {:?}", start.elapsed());
    let detail = run.result_at("/end/detail").as_str().unwrap_or_default();
    assert!(detail.contains("disk-1"), "{}", run.report());
    hanging.wait().expect("it is a child");
}

fn kernel_starts_no_program_of_the_workload_beside_pid_1() {
    let dir = TestDir::new();
    let disk = dir.file("root.ext4");
    file_system(&disk, 16, &[(&compile("kernel_helper"), "/kernel_helper")]);
    let disk = disk.display().to_string();
    let ways = ["process", "device", "interpreter"].map(|way| format!("{way}: did not run\n")).concat();
    let output =
        format!("{ways}release agent: refused\nmount namespace: refused\ninitramfs: did not run\nkey: did not run\n");
    for options in [&[][..], &["--init", "--privileged"], &["--scratch", "tmpfs"]] {
        let run = dir.run(&[options, &["--rootfs", &disk, "/kernel_helper"]].concat());
        run.assert_status(0).assert_stdout(&output);
    }
}
