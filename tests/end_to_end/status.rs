// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The process ends as the workload ends.

use coracle_tests::{Case, TestDir, case, image};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Smoke, missing_command_gives_127),
        case!(Full, file_that_cannot_be_executed_gives_126),
        case!(Full, directory_as_a_command_gives_126),
        case!(Full, status_0_and_255_are_passed_on),
        case!(Full, descendants_do_not_outlive_the_workload),
        case!(Full, workload_beyond_its_memory_ends_with_oom),
        case!(Full, unknown_user_is_a_config_error),
        case!(Full, numeric_user_need_not_be_in_the_image),
        case!(Full, smallest_and_largest_sizes_boot),
        case!(Full, two_vcpus_and_256_mebibytes_are_seen_inside),
    ]
}

fn missing_command_gives_127() {
    let dir = TestDir::new();
    dir.run(&[&image("busybox"), "nosuch"]).assert_status(127).assert_one_line_naming(&["nosuch"]);
}

fn file_that_cannot_be_executed_gives_126() {
    let dir = TestDir::new();
    dir.run(&[&image("busybox"), "/etc/passwd"]).assert_status(126).assert_one_line_naming(&["/etc/passwd"]);
}

fn directory_as_a_command_gives_126() {
    let dir = TestDir::new();
    dir.run(&[&image("busybox"), "/etc"]).assert_status(126).assert_one_line_naming(&["/etc"]);
}

fn status_0_and_255_are_passed_on() {
    let dir = TestDir::new();
    dir.run(&[&image("busybox"), "true"]).assert_status(0).assert_reason("exited");
    dir.run(&[&image("busybox"), "sh", "-c", "exit 255"]).assert_status(255).assert_reason("exited");
}

fn descendants_do_not_outlive_the_workload() {
    let dir = TestDir::new();
    let script = "trap '' TERM HUP; sleep 1000 & sleep 1000 & exit 5";
    let run = dir.run(&[&image("busybox"), "sh", "-c", script]);
    run.assert_status(5).assert_reason("exited");
}

fn workload_beyond_its_memory_ends_with_oom() {
    let dir = TestDir::new();
    let program = "blocks = []\nwhile True: blocks.append(bytearray(1 << 20))";
    let run = dir.run(&["--entrypoint", "python3", &image("python"), "-c", program]);
    // The guest overcommits memory, so that python's allocation does not fail before the kernel acts.
    run.assert_status(137).assert_reason("oom");
    let detail = "out of memory: the machine has 128m; --memory gives more";
    assert_eq!(*run.result_at("/end/detail"), detail, "{}", run.report());
    run.assert_stderr(&format!("coracle: {detail}\n"));
}

fn unknown_user_is_a_config_error() {
    let dir = TestDir::new();
    let run = dir.run(&["-u", "no-such-user", &image("busybox"), "true"]);
    run.assert_status(125).assert_reason("config-error").assert_one_line_naming(&["no-such-user"]);
}

fn numeric_user_need_not_be_in_the_image() {
    let dir = TestDir::new();
    let run = dir.run(&["-u", "54321:12345", &image("busybox"), "sh", "-c", "id -u; id -g"]);
    run.assert_status(0).assert_stdout("54321\n12345\n");
}

fn smallest_and_largest_sizes_boot() {
    let dir = TestDir::new();
    dir.run(&["-m", "64m", &image("busybox"), "echo", "small"]).assert_status(0).assert_stdout("small\n");
    // Above 4 GiB.
    let large =
        dir.run(&["-m", "5g", &image("busybox"), "awk", "/MemTotal/ { print ($2 > 4500000) }", "/proc/meminfo"]);
    large.assert_status(0).assert_stdout("1\n");
}

fn two_vcpus_and_256_mebibytes_are_seen_inside() {
    let dir = TestDir::new();
    let script =
        "nproc; awk '/MemTotal/ { print ($2 > 200000 && $2 <= 262144) }' /proc/meminfo; free -m | head -2 | wc -l";
    let run = dir.run(&["--cpus", "2", "-m", "256m", &image("busybox"), "sh", "-c", script]);
    run.assert_status(0).assert_stdout("2\n1\n2\n");
}
