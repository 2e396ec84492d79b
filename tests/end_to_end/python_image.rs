// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The configuration of an image: entrypoint, command, user, working directory, environment.

use coracle_tests::{Case, TestDir, case, image};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Full, image_config_sets_user_directory_and_environment),
        case!(Full, crashed_workload_ends_with_128_and_its_signal),
        case!(Full, image_command_runs_under_its_entrypoint),
        case!(Full, entrypoint_option_drops_the_images_command),
        case!(Full, supplementary_groups_come_from_the_images_files),
    ]
}

/// Prints user, directories, process number and environment in a fixed order.
const SHOW: &str = "import os, pwd; print(os.getuid(), os.getgid(), pwd.getpwuid(os.getuid()).pw_name); \
                    print(os.getcwd()); print(os.environ['HOME']); print(os.getpid()); \
                    print(os.access('.', os.W_OK)); print(sorted(os.environ))";

fn image_config_sets_user_directory_and_environment() {
    let dir = TestDir::new();
    let run = dir.run(&["-e", "ADDED=1", &image("python"), "-c", SHOW]);
    run.assert_status(0);
    let text = run.stdout_text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "1000 1000 app", "user of the image\n{}", run.report());
    assert_eq!(lines[1], "/srv/app", "working directory of the image\n{}", run.report());
    assert!(lines[2].starts_with('/'), "HOME from the image's passwd file\n{}", run.report());
    assert_eq!(lines[3], "1", "PID 1 of its own namespace\n{}", run.report());
    assert_eq!(lines[4], "True", "the working directory is the user's\n{}", run.report());
    for name in ["'ADDED'", "'PATH'", "'LANG'", "'HOSTNAME'"] {
        assert!(lines[5].contains(name), "{name} in the environment\n{}", run.report());
    }
}

fn image_command_runs_under_its_entrypoint() {
    let dir = TestDir::new();
    let run = dir.run(&[&image("python")]);
    run.assert_status(0).assert_reason("exited").assert_stderr("");
    for word in ["app", "/srv/app", "6.12"] {
        assert!(run.stdout_text().contains(word), "the output of the image has no `{word}`\n{}", run.report());
    }
}

fn crashed_workload_ends_with_128_and_its_signal() {
    let dir = TestDir::new();
    let run = dir.run(&[&image("python"), "-c", "import ctypes; ctypes.string_at(0)"]);
    run.assert_status(139).assert_reason("signalled");
    assert_eq!(run.result_at("/end/signal"), 11, "{}", run.report());
}

fn entrypoint_option_drops_the_images_command() {
    let dir = TestDir::new();
    // An empty option is as if it were not given: the user is the image's.
    let script = "echo $0 $#; id -u";
    let run = dir.run(&["-u", "", "--entrypoint", "/bin/sh", &image("python"), "-c", script]);
    run.assert_status(0).assert_stdout("/bin/sh 0\n1000\n");
    let alone = dir.run(&["--entrypoint", "/bin/true", &image("python")]);
    alone.assert_status(0).assert_stdout("");
}

fn supplementary_groups_come_from_the_images_files() {
    let dir = TestDir::new();
    let program = "import os, grp; groups = {g.gr_gid for g in grp.getgrall() if 'app' in g.gr_mem}; \
                   print(groups <= set(os.getgroups()), set(os.getgroups()) <= groups | {os.getgid()})";
    dir.run(&[&image("python"), "-c", program]).assert_status(0).assert_stdout("True True\n");
}
