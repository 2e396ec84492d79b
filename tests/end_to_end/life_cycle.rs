// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What others see of a machine, and what they can do to it: status, events, and the verbs.

use coracle_tests::{Case, Finished, Running, TestDir, case, image};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::time::{Duration, Instant};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Quick, empty_run_directory_lists_nothing),
        case!(Quick, unknown_machine_is_one_line_and_125),
        case!(Quick, ps_lists_five_hundred_machines),
        case!(Smoke, machine_is_listed_paused_resumed_and_stopped),
        case!(Full, events_go_to_the_machine_and_an_inherited_descriptor),
        case!(Full, killed_process_leaves_a_dead_machine_to_remove),
        case!(Full, stop_ends_a_paused_machine_and_succeeds_twice),
        case!(Full, stop_cuts_the_power_after_its_timeout),
        case!(Full, kill_sends_signals_and_cuts_the_power),
        case!(Full, wait_prints_the_status_of_an_unnamed_machine),
        case!(Full, stats_count_what_the_guest_did),
        case!(Full, guest_clocks_go_on_over_a_pause),
        case!(Full, stop_before_the_workload_runs_ends_the_start),
        case!(Full, full_run_directory_does_not_stop_the_machine),
    ]
}

/// A shell that runs `traps`, prints `up` and waits.
pub(crate) fn waiting(dir: &TestDir, name: &str, traps: &str) -> Running {
    let script = format!("{traps}; echo up; while :; do sleep 1000 & wait $!; done");
    let mut run = dir.start(&["--name", name, &image("busybox"), "sh", "-c", &script]);
    run.wait_for_stdout("up\n");
    run
}

fn verb(dir: &TestDir, verb: &'static str, arguments: &[&str]) -> Finished {
    dir.verb(verb, arguments).finish()
}

pub(crate) fn status(dir: &TestDir, name: &str) -> Value {
    let shown = verb(dir, "status", &["--json", name]);
    shown.assert_status(0);
    serde_json::from_slice(&shown.stdout).expect("it is JSON")
}

fn result(dir: &TestDir, name: &str) -> Value {
    let path = dir.run_directory().join(name).join("result.json");
    serde_json::from_slice(&fs::read(path).expect("there is a result")).expect("it is JSON")
}

fn empty_run_directory_lists_nothing() {
    let dir = TestDir::new();
    let table = verb(&dir, "ps", &["-a"]);
    table.assert_status(0);
    assert_eq!(table.stdout_text().lines().count(), 1, "{}", table.report());
    verb(&dir, "ps", &["--json"]).assert_status(0).assert_stdout("[]\n");
    verb(&dir, "ps", &["-aq"]).assert_status(0).assert_stdout("");
    verb(&dir, "stats", &["--no-stream", "--json"]).assert_status(0).assert_stdout("[]\n");
}

fn unknown_machine_is_one_line_and_125() {
    let dir = TestDir::new();
    for name in ["status", "logs", "attach", "events", "wait", "stop", "kill", "pause", "resume", "rm"] {
        let refused = verb(&dir, name, &["missing"]);
        refused.assert_status(125).assert_one_line_naming(&["missing"]);
    }
    verb(&dir, "update", &["--disk", "root,read-bps=1m", "missing"])
        .assert_status(125)
        .assert_one_line_naming(&["missing"]);
    verb(&dir, "rm", &["-f", "missing"]).assert_status(0).assert_stdout("");
    for (name, arguments, object) in [
        ("ps", &["--filter", "colour=red"][..], "colour=red"),
        ("ps", &["--filter", "status=up"], "up"),
        ("logs", &["--since", "yesterday", "x"], "yesterday"),
        ("kill", &["-s", "NOSUCH", "x"], "NOSUCH"),
        ("stop", &["-t", "-1", "x"], "-1"),
        ("stop", &[], "MACHINE"),
        ("update", &["x"], "--disk"),
        ("update", &["--disk", "root", "x"], "root"),
        ("update", &["--disk", "root,rx-bps=1", "x"], "rx-bps=1"),
        ("update", &["--network", "eth0,rx-bps=fast", "x"], "rx-bps=fast"),
    ] {
        verb(&dir, name, arguments).assert_status(125).assert_one_line_naming(&[object]);
    }
}

/// What a run that ended leaves, made by hand.
fn ps_lists_five_hundred_machines() {
    let dir = TestDir::new().keeping_machines();
    let status = |id: &str| {
        serde_json::json!({
            "version": 1, "sequence": 3, "id": id, "state": "exited", "since": "2026-11-22T10:00:00Z",
            "created": "2026-11-22T09:00:00Z", "pid": 4_000_000, "pid_started": 1, "ready": false,
            "image": "oci:/images/busybox", "command": ["true"], "detached": true, "terminal": false, "cpus": 1,
            "memory_bytes": 134_217_728, "addresses": [],
            "counters": { "cpu_vcpu_ns": 1, "cpu_vmm_ns": 1, "memory_resident_bytes": 1, "disks": [], "nets": [] },
            "end": { "reason": "exited", "status": 0, "signal": null, "detail": "" },
        })
    };
    for index in 0..500 {
        let id = format!("machine-{index}");
        let entry = dir.run_directory().join(&id);
        fs::create_dir(&entry).expect("the test's directory is writable");
        fs::write(entry.join("lock"), "4000000\n").expect("writable");
        fs::write(entry.join("status.json"), status(&id).to_string()).expect("writable");
    }
    let listed = verb(&dir, "ps", &["-a"]);
    listed.assert_status(0);
    assert_eq!(listed.stdout_text().lines().count(), 501);
}

fn machine_is_listed_paused_resumed_and_stopped() {
    let dir = TestDir::new().keeping_machines();
    let run = waiting(&dir, "seen", "trap 'exit 5' TERM");
    let shown = status(&dir, "seen");
    assert_eq!((&shown["state"], &shown["ready"]), (&"running".into(), &true.into()), "{shown}");
    assert_eq!(shown["pid"], run.pid());
    let table = verb(&dir, "ps", &[]).stdout_text();
    assert!(table.contains("seen") && table.contains("Up ") && table.contains("\"sh -c "), "{table}");
    let row = verb(&dir, "stats", &["--no-stream"]).stdout_text();
    assert!(row.contains("seen") && row.contains("128MiB"), "{row}");

    verb(&dir, "pause", &["se"]).assert_status(0).assert_stdout("seen\n");
    verb(&dir, "pause", &["seen"]).assert_status(0);
    assert!(verb(&dir, "ps", &[]).stdout_text().contains("(Paused)"));
    let vcpu_time = || status(&dir, "seen")["counters"]["cpu_vcpu_ns"].as_u64();
    assert_eq!(vcpu_time(), vcpu_time(), "a paused machine does nothing");
    verb(&dir, "resume", &["seen"]).assert_status(0).assert_stdout("seen\n");
    assert_eq!(status(&dir, "seen")["state"], "running");

    let waited = dir.verb("wait", &["seen"]).start();
    verb(&dir, "stop", &["--timeout", "120", "seen"]).assert_status(0).assert_stdout("seen\n");
    run.finish().assert_status(5).assert_reason("stopped");
    waited.finish().assert_status(0).assert_stdout("5\n");
    let ended = status(&dir, "seen");
    assert_eq!((&ended["state"], &ended["end"]["reason"]), (&"exited".into(), &"stopped".into()), "{ended}");
    assert!(verb(&dir, "ps", &["-a"]).stdout_text().contains("Exited (5)"));
    verb(&dir, "wait", &["seen"]).assert_status(0).assert_stdout("5\n");
    verb(&dir, "rm", &["seen"]).assert_status(0).assert_stdout("seen\n");
    assert!(!dir.run_directory().join("seen").exists());
}

fn events_go_to_the_machine_and_an_inherited_descriptor() {
    let dir = TestDir::new().keeping_machines();
    let file = dir.file("events");
    let shell = format!("exec \"$@\" 9> {}", file.display());
    let arguments = ["--name", "observed", "--events", "fd:9", &image("busybox"), "true"];
    let run = dir.invocation(&arguments).wrapped(&["sh", "-c", &shell, "sh"]).finish();
    run.assert_status(0);
    let shown = verb(&dir, "events", &["observed"]).stdout_text();
    assert_eq!(shown, fs::read_to_string(file).expect("the shell made it"), "both say the same");
    let events: Vec<Value> = shown.lines().map(|line| serde_json::from_str(line).expect("it is JSON")).collect();
    let states: Vec<&str> = events.iter().filter_map(|event| event["state"].as_str()).collect();
    assert_eq!(states, ["starting", "running", "exited"]);
    let numbers: Vec<u64> = events.iter().filter_map(|event| event["sequence"].as_u64()).collect();
    assert_eq!(numbers, [1, 2, 3]);
    let of_status: Value = events[2].clone();
    assert_eq!(status(&dir, "observed"), of_status);
    assert_eq!(result(&dir, "observed")["counters"], of_status["counters"]);
}

fn killed_process_leaves_a_dead_machine_to_remove() {
    let dir = TestDir::new().keeping_machines();
    let run = waiting(&dir, "victim", ":");
    let following = dir.verb("events", &["-f", "victim"]).start();
    run.signal(Signal::KILL);
    let _ = run.finish();
    assert_eq!(following.finish().stdout_text().lines().count(), 2, "the follower ends with the process");
    assert_eq!(status(&dir, "victim")["state"], "dead");
    verb(&dir, "wait", &["victim"]).assert_status(125).assert_one_line_naming(&["victim", "killed"]);
    verb(&dir, "stop", &["victim"]).assert_status(0);
    verb(&dir, "pause", &["victim"]).assert_status(125).assert_one_line_naming(&["victim", "dead"]);
    verb(&dir, "kill", &["victim"]).assert_status(125).assert_one_line_naming(&["victim", "dead"]);
    verb(&dir, "rm", &["victim"]).assert_status(0);
    assert!(!dir.run_directory().join("victim").exists());
}

fn stop_ends_a_paused_machine_and_succeeds_twice() {
    let dir = TestDir::new().keeping_machines();
    let run = waiting(&dir, "twice", "trap 'sleep 1; exit 3' TERM");
    verb(&dir, "pause", &["twice"]).assert_status(0);
    let stops = [dir.verb("stop", &["twice"]).start(), dir.verb("stop", &["twice"]).start()];
    for stop in stops {
        stop.finish().assert_status(0).assert_stdout("twice\n");
    }
    run.finish().assert_status(3).assert_reason("stopped");
    verb(&dir, "stop", &["twice"]).assert_status(0).assert_stdout("twice\n");
}

fn stop_cuts_the_power_after_its_timeout() {
    let dir = TestDir::new().keeping_machines();
    let run = waiting(&dir, "stubborn", "trap '' TERM");
    let asked = Instant::now();
    verb(&dir, "stop", &["-t", "1", "stubborn"]).assert_status(0);
    assert!(asked.elapsed() >= Duration::from_secs(1), "it has its second");
    run.finish().assert_status(137).assert_reason("killed");
    let run = waiting(&dir, "at-once", "trap '' TERM");
    verb(&dir, "stop", &["-t", "0", "at-once"]).assert_status(0);
    run.finish().assert_status(137).assert_reason("killed");
}

fn kill_sends_signals_and_cuts_the_power() {
    let dir = TestDir::new().keeping_machines();
    let mut run = waiting(&dir, "hit", "trap 'echo usr1' USR1");
    verb(&dir, "kill", &["-s", "USR1", "hit"]).assert_status(0).assert_stdout("hit\n");
    run.wait_for_stdout("usr1\n");
    verb(&dir, "kill", &["hit"]).assert_status(0).assert_stdout("hit\n");
    run.finish().assert_status(137).assert_reason("killed");
}

fn wait_prints_the_status_of_an_unnamed_machine() {
    let dir = TestDir::new();
    let mut run = dir.invocation(&["-i", &image("busybox"), "sh", "-c", "echo up; read line; exit 9"]);
    run = run.stdin(coracle_tests::Stdin::Pipe);
    let mut run = run.start();
    run.wait_for_stdout("up\n");
    let names = verb(&dir, "ps", &["-q"]).stdout_text();
    let waiters = [dir.verb("wait", &[names.trim()]).start(), dir.verb("wait", &[names.trim()]).start()];
    // A waiter is connected when the machine has accepted it: the status comes over the same socket after that.
    status(&dir, names.trim());
    run.send("go on\n");
    run.finish().assert_status(9);
    for waiter in waiters {
        let waited = waiter.finish();
        // One that was too late to ask has to say so.
        assert!(waited.stdout_text() == "9\n" || waited.stderr.contains("gone"), "{}", waited.report());
    }
}

fn stats_count_what_the_guest_did() {
    let dir = TestDir::new().keeping_machines();
    let script = "dd if=/dev/zero of=/file bs=1M count=40 2>/dev/null; sync; echo up; sleep 1000";
    let mut run = dir.start(&["--name", "busy", &image("busybox"), "sh", "-c", script]);
    run.wait_for_stdout("up\n");
    let counters = status(&dir, "busy")["counters"].clone();
    let written: u64 =
        counters["disks"].as_array().expect("a list").iter().filter_map(|disk| disk["write_bytes"].as_u64()).sum();
    assert!((40 << 20..60 << 20).contains(&written), "{counters}");
    let memory = counters["memory_resident_bytes"].as_u64().expect("a number");
    assert!((20 << 20..160 << 20).contains(&memory), "{counters}");
    let again = status(&dir, "busy")["counters"].clone();
    for name in ["cpu_vcpu_ns", "cpu_vmm_ns"] {
        assert!(again[name].as_u64() >= counters[name].as_u64() && counters[name].as_u64() > Some(0), "{name}");
    }
    let shown = verb(&dir, "stats", &["--no-stream", "--json", "busy"]);
    let shown: Value = serde_json::from_slice(&shown.stdout).expect("it is JSON");
    assert_eq!((&shown[0]["id"], &shown[0]["memory_bytes"]), (&"busy".into(), &(128 << 20).into()), "{shown}");
    verb(&dir, "kill", &["busy"]).assert_status(0);
    run.finish().assert_status(137);
}

fn guest_clocks_go_on_over_a_pause() {
    let dir = TestDir::new().keeping_machines();
    let script = "echo up; while :; do date +%s; sleep 0.2; done";
    let mut run = dir.start(&["--name", "clock", "--cpus", "2", &image("busybox"), "sh", "-c", script]);
    run.wait_for_stdout("up\n");
    verb(&dir, "pause", &["clock"]).assert_status(0);
    // The length of the pause is the input of this test.
    std::thread::sleep(Duration::from_secs(3));
    verb(&dir, "resume", &["clock"]).assert_status(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    run.wait_for_stdout(&format!("{}\n", now + 2));
    verb(&dir, "stop", &["-t", "0", "clock"]).assert_status(0);
    let run = run.finish();
    let times: Vec<u64> = run.stdout_text().lines().filter_map(|line| line.parse().ok()).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert!(!run.console.contains("soft lockup") && !run.console.contains("clocksource"), "{}", run.report());
}

fn stop_before_the_workload_runs_ends_the_start() {
    let dir = TestDir::new().keeping_machines();
    // From the entry to the machine's end: the moment is the input of this test.
    for milliseconds in [0, 30, 100, 200, 400] {
        let run = dir.start(&["--name", "early", &image("busybox"), "sleep", "1000"]);
        let entry = dir.run_directory().join("early/status.json");
        let deadline = Instant::now() + Duration::from_secs(20);
        while fs::read_to_string(&entry).map_or(true, |text| !text.contains(&format!("\"pid\":{}", run.pid()))) {
            assert!(Instant::now() < deadline && !run.has_ended(), "no status");
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_millis(milliseconds));
        verb(&dir, "stop", &["-t", "0", "early"]).assert_status(0).assert_stdout("early\n");
        let run = run.finish();
        assert!(matches!(run.status.code(), Some(143 | 137)), "after {milliseconds} ms\n{}", run.report());
    }
}

fn full_run_directory_does_not_stop_the_machine() {
    let dir = TestDir::new().keeping_machines();
    let directory = dir.run_directory().display().to_string();
    // Entry, lock and configuration fit; after that nothing does.
    let small = format!("mount -t tmpfs -o size=16k none {directory} && exec \"$@\"");
    let run = dir.invocation(&["--id", "full", &image("busybox"), "echo", "x"]);
    let run = run.wrapped(&["unshare", "--mount", "sh", "-c", &small, "sh"]).finish();
    assert_eq!(run.status.code(), Some(0), "{}", run.report());
    run.assert_stdout("x\n");
    assert!(run.stderr.contains(&directory) && run.stderr.lines().count() <= 2, "{}", run.report());
}
