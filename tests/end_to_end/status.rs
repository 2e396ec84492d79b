// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How a workload ends is how the process ends.

use coracle_tests::{Case, Place, case, image};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Smoke, a_command_that_is_not_there_gives_127),
        case!(Smoke, a_file_that_is_no_program_gives_126),
        case!(Full, a_folder_as_a_command_gives_126),
        case!(Full, status_0_and_255_arrive_as_they_are),
        case!(Full, descendants_do_not_outlive_the_workload),
        case!(Full, a_workload_beyond_its_memory_ends_with_reason_oom),
        case!(Full, an_unknown_user_is_an_error_of_the_configuration),
        case!(Full, a_numeric_user_need_not_be_in_the_image),
        case!(Full, sizes_at_the_limits_boot),
        case!(Smoke, two_processors_and_256_mebibytes_are_seen_inside),
    ]
}

fn a_command_that_is_not_there_gives_127() {
    let place = Place::new();
    place.run(&[&image("busybox"), "nosuch"]).assert_status(127).assert_one_line_naming(&["nosuch"]);
}

fn a_file_that_is_no_program_gives_126() {
    let place = Place::new();
    place.run(&[&image("busybox"), "/etc/passwd"]).assert_status(126).assert_one_line_naming(&["/etc/passwd"]);
}

fn a_folder_as_a_command_gives_126() {
    let place = Place::new();
    place.run(&[&image("busybox"), "/etc"]).assert_status(126).assert_one_line_naming(&["/etc"]);
}

fn status_0_and_255_arrive_as_they_are() {
    let place = Place::new();
    place.run(&[&image("busybox"), "true"]).assert_status(0).assert_reason("exited");
    place.run(&[&image("busybox"), "sh", "-c", "exit 255"]).assert_status(255).assert_reason("exited");
}

fn descendants_do_not_outlive_the_workload() {
    let place = Place::new();
    let script = "trap '' TERM HUP; sleep 1000 & sleep 1000 & exit 5";
    let run = place.run(&[&image("busybox"), "sh", "-c", script]);
    run.assert_status(5).assert_reason("exited");
}

fn a_workload_beyond_its_memory_ends_with_reason_oom() {
    let place = Place::new();
    let program = "blocks = []\nwhile True: blocks.append(bytearray(1 << 20))";
    let run = place.run(&["--entrypoint", "python3", &image("python"), "-c", program]);
    // Python may see its allocation refused before the kernel acts only if overcommit were off in the guest.
    run.assert_status(137).assert_reason("oom");
}

fn an_unknown_user_is_an_error_of_the_configuration() {
    let place = Place::new();
    let run = place.run(&["-u", "nobody-of-this-name", &image("busybox"), "true"]);
    run.assert_status(125).assert_reason("config-error").assert_one_line_naming(&["nobody-of-this-name"]);
}

fn a_numeric_user_need_not_be_in_the_image() {
    let place = Place::new();
    let run = place.run(&["-u", "54321:12345", &image("busybox"), "sh", "-c", "id -u; id -g"]);
    run.assert_status(0).assert_stdout("54321\n12345\n");
}

fn sizes_at_the_limits_boot() {
    let place = Place::new();
    place.run(&["-m", "64m", &image("busybox"), "echo", "small"]).assert_status(0).assert_stdout("small\n");
    // Beyond the hole below 4 GiB.
    let large =
        place.run(&["-m", "5g", &image("busybox"), "awk", "/MemTotal/ { print ($2 > 4500000) }", "/proc/meminfo"]);
    large.assert_status(0).assert_stdout("1\n");
}

fn two_processors_and_256_mebibytes_are_seen_inside() {
    let place = Place::new();
    let script =
        "nproc; awk '/MemTotal/ { print ($2 > 200000 && $2 <= 262144) }' /proc/meminfo; free -m | head -2 | wc -l";
    let run = place.run(&["--cpus", "2", "-m", "256m", &image("busybox"), "sh", "-c", script]);
    run.assert_status(0).assert_stdout("2\n1\n2\n");
}
