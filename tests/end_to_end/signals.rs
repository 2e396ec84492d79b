// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Signals to the process reach the workload, as the contract's table defines.

use coracle_tests::{Case, Running, TestDir, case, compile, file_system, image};
use rustix::process::Signal;
use std::process::Command;
use std::time::{Duration, Instant};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Smoke, term_before_the_workload_runs_ends_with_143),
        case!(Full, second_term_cuts_the_power),
        case!(Full, term_reaches_a_handler_and_its_status_counts),
        case!(Full, stop_signal_of_the_image_is_sent),
        case!(Full, workload_that_ignores_term_is_killed_in_time),
        case!(Full, init_option_lets_term_end_a_workload),
        case!(Full, int_is_forwarded_as_int),
        case!(Full, second_int_is_like_term),
        case!(Smoke, every_signal_but_kill_and_stop_reaches_the_workload),
        case!(Full, init_option_forwards_every_signal),
        case!(Full, run_beyond_its_time_ends_with_timeout),
        case!(Full, kill_leaves_nothing_behind),
        case!(Full, stopped_and_continued_run_goes_on),
        case!(Full, term_at_any_moment_ends_the_run),
    ]
}

/// A shell in the guest that runs `traps`, prints `up`, and waits for ever, in a way that lets its traps run at once.
fn waiting_shell(dir: &TestDir, options: &[&str], traps: &str) -> Running {
    let script = format!("{traps}; echo up; while :; do sleep 1000 & wait $!; done");
    let image = image("busybox");
    let arguments = [options, &[&image, "sh", "-c", &script]].concat();
    let mut run = dir.start(&arguments);
    run.wait_for_stdout("up\n");
    run
}

fn term_before_the_workload_runs_ends_with_143() {
    let dir = TestDir::new();
    let run = dir.start(&["--kernel", &coracle_tests::kernel().display().to_string(), &image("busybox"), "echo", "x"]);
    // The machine's directory is created before slow work, and after the signal handlers are set.
    let deadline = Instant::now() + Duration::from_secs(20);
    while std::fs::read_dir(dir.run_directory()).expect("readable").next().is_none() {
        assert!(Instant::now() < deadline && !run.has_ended(), "no machine in the run directory");
        std::thread::yield_now();
    }
    run.signal(Signal::TERM);
    let run = run.finish();
    run.assert_status(143).assert_reason("stopped").assert_stdout("");
}

fn second_term_cuts_the_power() {
    let dir = TestDir::new();
    let mut run = waiting_shell(&dir, &[], "trap 'echo caught' TERM");
    run.signal(Signal::TERM);
    run.wait_for_stdout("caught");
    run.signal(Signal::TERM);
    let run = run.finish();
    run.assert_status(137).assert_reason("killed");
    // Not by the stop timeout.
    assert!(run.result_at("/end/detail").as_str().is_some_and(|detail| detail.contains("second")), "{}", run.report());
}

fn term_reaches_a_handler_and_its_status_counts() {
    let dir = TestDir::new();
    let run = waiting_shell(&dir, &[], "trap 'echo bye; exit 42' TERM");
    run.signal(Signal::TERM);
    let run = run.finish();
    run.assert_status(42).assert_reason("stopped").assert_stdout("up\nbye\n");
}

fn stop_signal_of_the_image_is_sent() {
    let dir = TestDir::new();
    let run = waiting_shell(&dir, &["--stop-signal", "USR2"], "trap 'echo usr2; exit 9' USR2");
    run.signal(Signal::TERM);
    run.finish().assert_status(9).assert_reason("stopped").assert_stdout("up\nusr2\n");
}

fn workload_that_ignores_term_is_killed_in_time() {
    let dir = TestDir::new();
    let run = waiting_shell(&dir, &["--stop-timeout", "2"], "trap '' TERM");
    let asked = Instant::now();
    run.signal(Signal::TERM);
    run.finish().assert_status(137).assert_reason("killed");
    assert!(asked.elapsed() >= Duration::from_secs(2), "took {:?}", asked.elapsed());
}

fn init_option_lets_term_end_a_workload() {
    let dir = TestDir::new();
    let mut run = dir.start(&["--init", &image("busybox"), "sh", "-c", "echo up; exec sleep 1000"]);
    run.wait_for_stdout("up\n");
    run.signal(Signal::TERM);
    run.finish().assert_status(143).assert_reason("stopped");
}

fn int_is_forwarded_as_int() {
    let dir = TestDir::new();
    let run = waiting_shell(&dir, &[], "trap 'echo int; exit 3' INT");
    run.signal(Signal::INT);
    run.finish().assert_status(3).assert_stdout("up\nint\n");
}

fn second_int_is_like_term() {
    let dir = TestDir::new();
    let mut run = waiting_shell(&dir, &[], "trap 'echo int' INT; trap 'echo term; exit 4' TERM");
    run.signal(Signal::INT);
    run.wait_for_stdout("int\n");
    run.signal(Signal::INT);
    run.finish().assert_status(4).assert_reason("stopped").assert_stdout("up\nint\nterm\n");
}

/// A machine `m` whose workload prints the number of each signal that arrives, until TERM.
fn recorder(dir: &TestDir, options: &[&str]) -> Running {
    let disk = dir.file("root.ext4");
    file_system(&disk, 16, &[(&compile("signal_recorder"), "/signal_recorder")]);
    let disk = disk.display().to_string();
    let root = ["--name", "m", "--scratch", "tmpfs", "--rootfs", &disk];
    let mut run = dir.start(&[options, &root, &["/signal_recorder"]].concat());
    run.wait_for_stdout("up\n");
    run
}

/// Sends a signal, real-time ones and the C library's included, from another process, and waits until `process` prints it.
fn send_and_await(process: &mut Running, signal: u8) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{signal} {}", process.pid())]).status();
    assert!(sent.is_ok_and(|status| status.success()), "signal {signal} cannot be sent");
    process.wait_for_stdout(&format!("signal {signal}.\n"));
}

/// What arrived, in order, without the first line.
fn arrived(stdout: &str) -> Vec<u8> {
    let number = |line: &str| line.strip_prefix("signal ")?.strip_suffix('.')?.parse().ok();
    stdout.lines().filter_map(number).collect()
}

fn every_signal_but_kill_and_stop_reaches_the_workload() {
    let dir = TestDir::new().keeping_machines();
    let mut run = recorder(&dir, &[]);
    let all = (1..=64).filter(|signal| ![9, 15, 19].contains(signal));
    all.clone().for_each(|signal| send_and_await(&mut run, signal));
    let by_name: [u8; 6] = [3, 17, 32, 33, 34, 64];
    for signal in by_name {
        dir.verb("kill", &["-s", &signal.to_string(), "m"]).finish().assert_status(0);
    }
    let diff = dir.verb("diff", &["m"]).finish();
    diff.assert_status(125).assert_one_line_naming(&["m", "without an image", "--rootfs"]);
    let mut exec = dir.verb("exec", &["m", "/signal_recorder"]).start();
    exec.wait_for_stdout("up\n");
    let to_exec = [2, 17, 18, 20, 21, 32, 34, 64];
    to_exec.iter().for_each(|signal| send_and_await(&mut exec, *signal));
    exec.signal(Signal::TERM);
    let exec = exec.finish();
    exec.assert_status(0);
    assert_eq!(arrived(&exec.stdout_text()), [&to_exec[..], &[15]].concat(), "{}", exec.report());
    run.signal(Signal::TERM);
    let run = run.finish();
    run.assert_status(0).assert_reason("stopped");
    let expected: Vec<u8> = all.chain(by_name).chain([15]).collect();
    assert_eq!(arrived(&run.stdout_text()), expected, "{}", run.report());
}

fn init_option_forwards_every_signal() {
    let dir = TestDir::new().keeping_machines();
    let mut run = recorder(&dir, &["--init"]);
    for signal in [1, 3, 10, 12, 17, 18, 20, 21, 22, 28, 32, 34, 64] {
        send_and_await(&mut run, signal);
    }
    run.signal(Signal::TERM);
    run.finish().assert_status(0).assert_reason("stopped");
}

fn run_beyond_its_time_ends_with_timeout() {
    let dir = TestDir::new();
    let run = dir.run(&["--timeout", "3", &image("busybox"), "sleep", "1000"]);
    run.assert_reason("timeout").assert_status(137);
    assert!(run.elapsed >= Duration::from_secs(3), "took {:?}", run.elapsed);
}

fn kill_leaves_nothing_behind() {
    let dir = TestDir::new().keeping_machines();
    let run = waiting_shell(&dir, &["--name", "again"], ":");
    run.signal(Signal::KILL);
    let killed = run.finish();
    assert_eq!(killed.status.code(), None, "{}", killed.report());
    assert_eq!(killed.result, None, "no result of a killed process");
    // The same name starts again, in place of the dead machine.
    dir.run(&["--name", "again", &image("busybox"), "echo", "back"]).assert_status(0).assert_stdout("back\n");
}

fn stopped_and_continued_run_goes_on() {
    let dir = TestDir::new();
    let mut run = waiting_shell(&dir, &[], "trap 'echo on; exit 0' USR1");
    run.signal(Signal::STOP);
    run.signal(Signal::CONT);
    run.signal(Signal::USR1);
    run.wait_for_stdout("on\n");
    run.finish().assert_status(0);
}

fn term_at_any_moment_ends_the_run() {
    let dir = TestDir::new();
    // Moments spread over a boot on native KVM. They are the input of this test, which does not wait for an event.
    for step in 0..40 {
        let run = dir.start(&[&image("busybox"), "sleep", "1000"]);
        std::thread::sleep(Duration::from_millis(step * 15));
        run.signal_taken(Signal::TERM);
        run.signal(Signal::TERM);
        let run = run.finish();
        // Before main sets its handlers, TERM has its default effect.
        let early = std::os::unix::process::ExitStatusExt::signal(&run.status) == Some(15);
        assert!(early || matches!(run.status.code(), Some(137 | 143)), "after {} ms\n{}", step * 15, run.report());
    }
}
