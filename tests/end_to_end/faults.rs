// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Faults of the host, and several runs at once: nothing hangs, nothing is incomplete, nothing is left.

use coracle_tests::{Case, Invocation, Stdin, TestDir, case, image};
use rustix::process::Signal;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Full, reader_that_stops_reading_does_not_block_the_end),
        case!(Full, five_runs_with_one_name_start_one_machine),
        case!(Full, two_runs_with_a_cold_cache_convert_the_image_once),
        case!(Full, killed_conversion_leaves_a_cache_that_works),
        case!(Quick[Kvm, Root], full_temporary_directory_and_full_cache_are_named),
        case!(Full, environment_of_a_mebibyte_arrives_complete),
        case!(Full, kernel_without_init_ends_with_guest_panic),
        case!(Full, busy_guest_ends_at_a_second_term),
        case!(Full, name_of_an_ended_machine_can_be_used_again),
    ]
}

fn reader_that_stops_reading_does_not_block_the_end() {
    let dir = TestDir::new();
    let (mut reader, writer) = std::io::pipe().expect("the host has pipes");
    let run = dir.invocation(&[&image("busybox"), "yes"]).stdout(Stdio::from(writer)).start();
    reader.read_exact(&mut [0]).expect("the workload writes");
    run.signal_taken(Signal::TERM);
    run.signal(Signal::TERM);
    run.finish().assert_status(137).assert_reason("killed");
}

fn five_runs_with_one_name_start_one_machine() {
    let dir = TestDir::new().keeping_machines();
    let image = image("busybox");
    let arguments = ["-i", "--name", "one", &image, "cat"];
    let mut runs: Vec<_> = (0..5).map(|_| dir.invocation(&arguments).stdin(Stdin::Pipe).start()).collect();
    // The rejected runs end by themselves; the other one waits for its input.
    let deadline = Instant::now() + Duration::from_secs(60);
    while runs.iter().filter(|run| run.has_ended()).count() < 4 && Instant::now() < deadline {
        std::thread::yield_now();
    }
    let (losers, mut winners): (Vec<_>, Vec<_>) = runs.drain(..).partition(|run| run.has_ended());
    assert_eq!((winners.len(), losers.len()), (1, 4), "exactly one wins");
    for loser in losers {
        loser.finish().assert_status(125).assert_one_line_naming(&["one"]);
    }
    let mut winner = winners.remove(0);
    winner.send("still here\n");
    winner.close_stdin();
    winner.finish().assert_status(0).assert_stdout("still here\n");
}

/// A run with the image cache `cache`.
fn cold(dir: &TestDir, cache: &Path, arguments: &[&str]) -> Invocation {
    dir.invocation(arguments).env("XDG_CACHE_HOME", cache)
}

/// Names of all files below `directory`.
fn files_below(directory: &Path) -> Vec<String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).expect("readable").flatten() {
        match entry.path() {
            path if path.is_dir() => files.extend(files_below(&path)),
            path => files.push(path.display().to_string()),
        }
    }
    files
}

fn two_runs_with_a_cold_cache_convert_the_image_once() {
    let dir = TestDir::new();
    let cache = dir.file("cache");
    let image = image("busybox");
    let arguments = [&image, "echo", "x"];
    let (one, other) = (cold(&dir, &cache, &arguments).start(), cold(&dir, &cache, &arguments).start());
    one.finish().assert_status(0).assert_stdout("x\n");
    other.finish().assert_status(0).assert_stdout("x\n");
    let disks = files_below(&cache).into_iter().filter(|name| name.ends_with(".erofs")).count();
    assert_eq!(disks, 1, "{:?}", files_below(&cache));
}

fn killed_conversion_leaves_a_cache_that_works() {
    let dir = TestDir::new().keeping_machines();
    let cache = dir.file("cache");
    let image = image("python");
    for step in 0..10 {
        let run = cold(&dir, &cache, &[&image, "-c", "print('x')"]).start();
        // The moment is the input of this test. It does not wait for an event.
        std::thread::sleep(Duration::from_millis(step * 40));
        run.signal(Signal::KILL);
        let _ = run.finish();
    }
    cold(&dir, &cache, &[&image, "-c", "print('x')"]).finish().assert_status(0).assert_stdout("x\n");
    let images = cache.join("coracle/images");
    let left = files_below(&images);
    let names = left.iter().map(|name| name.trim_start_matches(&*images.to_string_lossy()));
    assert!(names.into_iter().all(|name| !name.contains("tmp") && !name.contains("partial")), "{left:?}");
}

fn full_temporary_directory_and_full_cache_are_named() {
    let dir = TestDir::new();
    let image = image("python");
    for (variable, directory) in [("XDG_CACHE_HOME", dir.file("cache")), ("TMPDIR", dir.file("full"))] {
        fs::create_dir(&directory).expect("the test's directory is writable");
        let directory = directory.display().to_string();
        let small = format!("mount -t tmpfs -o size=4k none {directory} && exec \"$@\"");
        let wrapper = ["unshare", "--mount", "sh", "-c", &small, "sh"];
        let run = dir.invocation(&[&image, "-c", "pass"]).env(variable, &directory).wrapped(&wrapper).finish();
        run.assert_status(125).assert_one_line_naming(&[&directory]);
    }
}

fn environment_of_a_mebibyte_arrives_complete() {
    let dir = TestDir::new();
    let lines: String = (0..16).map(|index| format!("LONG_{index}={}\n", "v".repeat(64 << 10))).collect();
    let file = dir.write("environment", lines).display().to_string();
    let script = "env | grep -c ^LONG_; env | grep ^LONG_ | wc -c";
    let run = dir.run(&["--env-file", &file, &image("busybox"), "sh", "-c", script]);
    let bytes = 10 * (8 + (64 << 10)) + 6 * (9 + (64 << 10));
    run.assert_status(0).assert_stdout(&format!("16\n{bytes}\n"));
}

fn kernel_without_init_ends_with_guest_panic() {
    let dir = TestDir::new();
    // An init that the kernel cannot execute, without another one.
    let init = dir.write("init", "no program\n").display().to_string();
    let run = dir.run(&["--init-binary", &init, &image("busybox"), "true"]);
    run.assert_status(125).assert_reason("guest-panic").assert_stdout("");
}

fn busy_guest_ends_at_a_second_term() {
    let dir = TestDir::new();
    let script = "(while :; do :; done) & echo up; while :; do :; done";
    let mut run = dir.start(&["--cpus", "2", &image("busybox"), "sh", "-c", script]);
    run.wait_for_stdout("up\n");
    run.signal_taken(Signal::TERM);
    run.signal(Signal::TERM);
    run.finish().assert_status(137).assert_reason("killed");
}

fn name_of_an_ended_machine_can_be_used_again() {
    let dir = TestDir::new().keeping_machines();
    for round in 0..5 {
        let word = round.to_string();
        let run = dir.run(&["--name", "again", &image("busybox"), "echo", &word]);
        run.assert_status(0).assert_stdout(&format!("{word}\n"));
    }
}
