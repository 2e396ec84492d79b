// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `run -d`: the name on standard output, the logs, the machine's directory.

use crate::life_cycle::status;
use coracle_tests::{Case, Finished, Invocation, TestDir, case, frames, image};
use std::fs;
use std::io::Read as _;
use std::time::{Duration, Instant};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Smoke, detached_start_prints_the_name_and_keeps_the_output),
        case!(Full, detached_start_that_fails_prints_why_with_its_status),
        case!(Full, logs_keep_streams_and_times_apart),
        case!(Full, logs_are_bounded_and_end_with_the_last_line),
        case!(Full, detached_machine_without_a_name_stays_until_removed),
        case!(Full, stop_returns_when_the_result_is_written),
        case!(Full, hundred_starts_of_one_name_leave_one_machine),
        case!(Full[Root], full_disk_loses_the_logs_but_not_the_workload),
        case!(Full, interrupted_detached_start_leaves_no_machine),
        case!(Full, foreground_machine_has_no_logs),
        case!(Full, control_socket_sends_logs_in_dockers_frames),
    ]
}

/// `run -d` without the harness's options for result and console.
fn detached(dir: &TestDir, arguments: &[&str]) -> Invocation {
    dir.verb("run", &[&["-d"], arguments].concat())
}

fn verb(dir: &TestDir, verb: &'static str, arguments: &[&str]) -> Finished {
    dir.verb(verb, arguments).finish()
}

fn detached_start_prints_the_name_and_keeps_the_output() {
    let dir = TestDir::new().keeping_machines();
    let script = "printf 'no end'; echo error >&2; echo; trap 'echo bye; exit 3' TERM; echo up; sleep 1000 & wait $!";
    let cidfile = dir.file("id").display().to_string();
    let started =
        detached(&dir, &["--name", "back", "--cidfile", &cidfile, &image("busybox"), "sh", "-c", script]).finish();
    started.assert_status(0).assert_stdout("back\n").assert_stderr("");
    assert_eq!(fs::read_to_string(cidfile).expect("it was made"), "back");
    let shown = status(&dir, "back");
    assert_eq!((&shown["state"], &shown["detached"]), (&"running".into(), &true.into()), "{shown}");
    // The trap is set before `up` is printed.
    let mut following = dir.verb("logs", &["-f", "back"]).start();
    following.wait_for_stdout("up\n");
    verb(&dir, "stop", &["back"]).assert_status(0).assert_stdout("back\n");
    following.finish().assert_status(0).assert_stdout("no end\nup\nbye\n").assert_stderr("error\n");
    verb(&dir, "logs", &["back"]).assert_stdout("no end\nup\nbye\n").assert_stderr("error\n");
    verb(&dir, "wait", &["back"]).assert_stdout("3\n");
    verb(&dir, "rm", &["back"]).assert_status(0);
}

fn detached_start_that_fails_prints_why_with_its_status() {
    let dir = TestDir::new().keeping_machines();
    let busybox = image("busybox");
    for (arguments, expected, object) in [
        (&["oci:/nowhere/at/all", "true"][..], 125, "/nowhere/at/all"),
        (&["--log-size", "1", &busybox, "true"], 125, "--log-size"),
        (&["--disk", "path=/nowhere", &busybox, "true"], 125, "/nowhere"),
        (&["--rm", &busybox, "no-such-command"], 127, "no-such-command"),
        (&["--rm", &busybox, "/etc/passwd"], 126, "/etc/passwd"),
    ] {
        let failed = detached(&dir, arguments).finish();
        failed.assert_status(expected).assert_one_line_naming(&[object]);
    }
    detached(&dir, &["--name", "twice", &busybox, "sleep", "1000"]).finish().assert_status(0);
    detached(&dir, &["--name", "twice", &busybox, "true"])
        .finish()
        .assert_status(125)
        .assert_one_line_naming(&["twice"]);
    verb(&dir, "rm", &["-f", "twice"]).assert_status(0).assert_stdout("twice\n");
}

fn logs_keep_streams_and_times_apart() {
    let dir = TestDir::new().keeping_machines();
    let script = "for n in 1 2 3 4 5; do echo out $n; echo err $n >&2; done; sleep 1; echo done; sleep 1000";
    detached(&dir, &["--name", "chatter", &image("busybox"), "sh", "-c", script]).finish().assert_status(0);
    dir.verb("logs", &["-f", "chatter"]).start().wait_for_stdout("done\n");
    // A second passes before the last line, so that it is the last one. Lines of two streams at the same time have no order.
    let stamped = verb(&dir, "logs", &["-t", "-n", "1", "chatter"]).stdout_text();
    let (time, text) = stamped.split_once(' ').expect("a time and a text");
    assert_eq!(text, "done\n");
    verb(&dir, "logs", &["--since", time, "chatter"]).assert_stdout("done\n").assert_stderr("");
    let last = verb(&dir, "logs", &["--since", "1h", "-n", "3", "chatter"]);
    assert_eq!(last.stdout_text().lines().count() + last.stderr.lines().count(), 3, "{}", last.report());
    let all = "out 1\nout 2\nout 3\nout 4\nout 5\ndone\n";
    for arguments in [&["chatter"][..], &["--tail", "all", "chatter"]] {
        verb(&dir, "logs", arguments).assert_stdout(all).assert_stderr("err 1\nerr 2\nerr 3\nerr 4\nerr 5\n");
    }
    // The follower ends when its reader closes the pipe, though nothing more is written.
    let mut following = std::process::Command::new(coracle_tests::coracle());
    following.args(["logs", "-f", "chatter", "--run-dir"]).arg(dir.run_directory());
    let mut following =
        following.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null()).spawn().expect("it starts");
    drop(following.stdout.take());
    assert!(following.wait().expect("it ends").success());
    verb(&dir, "rm", &["-f", "chatter"]).assert_status(0);
}

fn logs_are_bounded_and_end_with_the_last_line() {
    let dir = TestDir::new().keeping_machines();
    let arguments = ["--name", "chatty", "--log-size", "64k", &image("busybox"), "seq", "1", "200000"];
    detached(&dir, &arguments).finish().assert_status(0);
    verb(&dir, "wait", &["chatty"]).assert_stdout("0\n");
    let kept = verb(&dir, "logs", &["chatty"]).stdout_text();
    assert!(kept.ends_with("199999\n200000\n"), "{}", &kept[kept.len().saturating_sub(100)..]);
    let files: u64 = ["stdout.log", "stdout.log.1"]
        .iter()
        .map(|name| fs::metadata(dir.run_directory().join("chatty").join(name)).expect("it is there").len())
        .sum();
    assert!((32 << 10..80 << 10).contains(&files), "{files}");
}

fn detached_machine_without_a_name_stays_until_removed() {
    let dir = TestDir::new();
    let started = detached(&dir, &[&image("busybox"), "true"]).finish();
    let name = started.stdout_text().trim_end().to_owned();
    assert_eq!(name.len(), 12, "{}", started.report());
    verb(&dir, "wait", &[&name]).assert_stdout("0\n");
    assert_eq!(verb(&dir, "ps", &["-aq"]).stdout_text(), format!("{name}\n"));
    verb(&dir, "rm", &[&name[..4]]).assert_stdout(&format!("{name}\n"));
    detached(&dir, &["--rm", &image("busybox"), "true"]).finish().assert_status(0);
    // The directory goes first, then the process.
    let deadline = Instant::now() + Duration::from_secs(20);
    while !dir.residue().is_empty() {
        assert!(Instant::now() < deadline, "--rm left {}", dir.residue().join(", "));
        std::thread::yield_now();
    }
}

fn stop_returns_when_the_result_is_written() {
    let dir = TestDir::new().keeping_machines();
    let script = "trap 'exit 0' TERM; echo up; while :; do sleep 1000 & wait $!; done";
    detached(&dir, &["--name", "quick", &image("busybox"), "sh", "-c", script]).finish().assert_status(0);
    dir.verb("logs", &["-f", "quick"]).start().wait_for_stdout("up\n");
    verb(&dir, "stop", &["quick"]).assert_status(0);
    assert!(dir.run_directory().join("quick").join("result.json").exists());
}

fn hundred_starts_of_one_name_leave_one_machine() {
    let dir = TestDir::new().keeping_machines();
    let busybox = image("busybox");
    let arguments = ["--name", "one", &busybox, "sleep", "1000"];
    let starts: Vec<_> = (0..100).map(|_| detached(&dir, &arguments).limit(Duration::from_secs(300)).start()).collect();
    let ended: Vec<Finished> = starts.into_iter().map(coracle_tests::Running::finish).collect();
    let (won, lost): (Vec<_>, Vec<_>) = ended.iter().partition(|run| run.status.success());
    assert_eq!((won.len(), lost.len()), (1, 99));
    won[0].assert_stdout("one\n");
    for run in lost {
        run.assert_status(125).assert_one_line_naming(&["one", "in use"]);
    }
    verb(&dir, "rm", &["-f", "one"]).assert_status(0);
}

fn full_disk_loses_the_logs_but_not_the_workload() {
    let dir = TestDir::new().keeping_machines();
    let directory = dir.run_directory().display().to_string();
    // The machine and `wait` have the same small disk.
    let script =
        format!("mount -t tmpfs -o size=128k none {directory} && \"$@\" && \"$1\" wait --run-dir {directory} full");
    let run = detached(&dir, &["--id", "full", &image("busybox"), "seq", "1", "100000"]);
    let run = run.wrapped(&["unshare", "--mount", "sh", "-c", &script, "sh"]).finish();
    run.assert_status(0).assert_stdout("full\n0\n");
}

fn interrupted_detached_start_leaves_no_machine() {
    let dir = TestDir::new().keeping_machines();
    let start = detached(&dir, &["--name", "unwanted", &image("busybox"), "sleep", "1000"]).start();
    let entry = dir.run_directory().join("unwanted/status.json");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !entry.exists() {
        assert!(Instant::now() < deadline, "no status");
        std::thread::yield_now();
    }
    start.signal(rustix::process::Signal::INT);
    let waited = dir.verb("wait", &["unwanted"]).start();
    drop(start);
    waited.finish().assert_status(0).assert_stdout("137\n");
}

fn foreground_machine_has_no_logs() {
    let dir = TestDir::new().keeping_machines();
    dir.run(&["--name", "front", &image("busybox"), "true"]).assert_status(0);
    verb(&dir, "logs", &["front"]).assert_status(125).assert_one_line_naming(&["front", "-d"]);
}

/// `curl` on the control socket of a machine.
fn curl(dir: &TestDir, name: &str, path: &str) -> std::process::Command {
    let mut curl = std::process::Command::new("curl");
    curl.args(["--silent", "--show-error", "--no-buffer", "--max-time", "60", "--unix-socket"]);
    curl.arg(dir.run_directory().join(name).join("control.sock")).arg(format!("http://x/v1/{path}"));
    curl.stdout(std::process::Stdio::piped());
    curl
}

fn control_socket_sends_logs_in_dockers_frames() {
    let dir = TestDir::new().keeping_machines();
    let script =
        "seq 1 5000; echo oops >&2; trap 'printf bye; exit 0' TERM; echo up; while :; do sleep 1000 & wait $!; done";
    detached(&dir, &["--name", "framed", &image("busybox"), "sh", "-c", script]).finish().assert_status(0);
    dir.verb("logs", &["-f", "framed"]).start().wait_for_stdout("up\n");
    let read = |query: &str| {
        let output = curl(&dir, "framed", &format!("logs{query}")).output().expect("curl is there");
        assert!(output.status.success(), "{query}");
        output.stdout
    };
    let numbers: String = (1..=5000).map(|number| format!("{number}\n")).collect();
    let [_, out, err, own] = frames::texts(&read(""));
    assert!(out == format!("{numbers}up\n"), "{} bytes", out.len());
    assert_eq!((&*err, &*own), ("oops\n", ""));
    let stamped = frames::texts(&read("?stdout=1&timestamps=1&tail=1"));
    let (time, text) = stamped[1].split_once(' ').expect("a time and a text");
    assert_eq!((text, &*stamped[2]), ("up\n", ""));
    assert_eq!(frames::texts(&read(&format!("?since={time}")))[1], "up\n");
    assert!(String::from_utf8_lossy(&read("?tail=some")).contains("`some`"), "the invalid value is named");

    let mut following = curl(&dir, "framed", "logs?follow=1&tail=1&stdout=1").spawn().expect("curl is there");
    // A client that has its first frame gets all others, though the process ends.
    let mut followed = vec![0; 8 + 3];
    let mut pipe = following.stdout.take().expect("it is piped");
    pipe.read_exact(&mut followed).expect("curl passes on what comes");
    verb(&dir, "stop", &["framed"]).assert_status(0);
    pipe.read_to_end(&mut followed).expect("curl ends");
    assert!(following.wait().expect("it ends").success());
    assert_eq!(frames::texts(&followed)[1], "up\nbye");

    let run = crate::life_cycle::waiting(&dir, "front", "trap 'exit 0' TERM");
    let refused = curl(&dir, "front", "logs").output().expect("curl is there").stdout;
    assert!(String::from_utf8_lossy(&refused).contains("without -d"), "{}", String::from_utf8_lossy(&refused));
    run.signal(rustix::process::Signal::TERM);
    run.finish().assert_status(0);
}
