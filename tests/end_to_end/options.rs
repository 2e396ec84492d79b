// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Options of `run` as the workload sees them.

use coracle_tests::{Case, TestDir, case, image};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Full, user_directory_environment_and_hostname_are_passed),
        case!(Full, empty_values_are_as_if_not_given),
        case!(Full, read_only_root_takes_no_writes_but_a_tmpfs_does),
        case!(Full, scratch_on_tmpfs_takes_writes),
        case!(Full, scratch_none_makes_the_root_read_only),
        case!(Full, default_scratch_is_a_disk_of_8_gib),
        case!(Full, environment_comes_from_file_options_and_host),
        case!(Full, guest_has_a_containers_mounts_devices_and_files),
        case!(Full, written_file_is_gone_in_the_next_run),
        case!(Full, printed_configuration_runs_the_same),
        case!(Smoke, profile_names_functions_and_leaves_the_guest_alone),
    ]
}

fn user_directory_environment_and_hostname_are_passed() {
    let dir = TestDir::new();
    let file = dir.write("environment", "# a comment\nFROM_FILE=file\nBOTH=file\n");
    let script = "id -u; id -g; pwd; hostname; echo $FROM_FILE $BOTH $SET $INHERITED; grep -c made-up /etc/hosts";
    let run = dir
        .invocation(&[
            "-u",
            "1234:4321",
            "-w",
            "/new/directory",
            "-h",
            "made-up",
            "--env-file",
            &file.display().to_string(),
            "-e",
            "BOTH=line",
            "-e",
            "SET=a b",
            "-e",
            "INHERITED",
            "--entrypoint",
            "sh",
            &image("busybox"),
            "-c",
            script,
        ])
        .env("INHERITED", "from the host")
        .finish();
    run.assert_status(0);
    run.assert_stdout("1234\n4321\n/new/directory\nmade-up\nfile line a b from the host\n1\n");
}

fn empty_values_are_as_if_not_given() {
    let dir = TestDir::new();
    let empty =
        ["-u", "", "-w", "", "--name", "", "--stop-signal", "", "--health-cmd", "", "--network", "", "--cidfile", ""];
    let reference = image("busybox");
    let rest = ["-h", "made-up", "--entrypoint", "", &reference, "sh", "-c", "id -u; pwd; hostname"];
    let run = dir.run(&[&empty[..], &rest].concat());
    run.assert_status(0).assert_stdout("0\n/\nmade-up\n");
}

fn read_only_root_takes_no_writes_but_a_tmpfs_does() {
    let dir = TestDir::new();
    let script = "echo x > /root/x && echo wrote the root; echo x > /data/x && cat /data/x; \
                  df -m /data | awk 'END { print $2 }'";
    let run = dir.run(&["--read-only", "--tmpfs", "/data:size=16m,mode=1777", &image("busybox"), "sh", "-c", script]);
    run.assert_status(0).assert_stdout("x\n16\n");
    assert!(run.stderr.contains("Read-only file system"), "{}", run.report());
}

fn scratch_on_tmpfs_takes_writes() {
    let dir = TestDir::new();
    let script = "echo kept > /etc/new && cat /etc/new && rm /etc/passwd && ls /etc/passwd";
    let run = dir.run(&["--scratch", "tmpfs", &image("busybox"), "sh", "-c", script]);
    run.assert_status(1).assert_stdout("kept\n");
}

fn scratch_none_makes_the_root_read_only() {
    let dir = TestDir::new();
    let run = dir.run(&["--scratch", "none", &image("busybox"), "sh", "-c", "cat /etc/passwd | wc -l; echo x > /x"]);
    run.assert_status(1);
    assert!(run.stderr.contains("Read-only file system"), "{}", run.report());
}

fn default_scratch_is_a_disk_of_8_gib() {
    let dir = TestDir::new();
    let script =
        "dd if=/dev/zero of=/big bs=1M count=64 2>/dev/null && sync && df -m / | awk 'END { print ($2 > 7500) }'";
    dir.run(&[&image("busybox"), "sh", "-c", script]).assert_status(0).assert_stdout("1\n");
}

fn environment_comes_from_file_options_and_host() {
    let dir = TestDir::new();
    let file = dir.write("environment", "A=file\nB=file\nC=has = and spaces \nPATH_FROM_HOST\n").display().to_string();
    let script =
        "echo \"$A|$B|$C|$PATH_FROM_HOST|${SET_THERE-unset}|${NOT_SET_THERE-unset}|$SECRET\"; pwd; cat /proc/cmdline";
    let options =
        ["-e", "B=line", "-e", "SET_THERE", "-e", "NOT_SET_THERE", "-e", "SECRET=hunter2", "-w", "/not/there/yet"];
    let image = image("busybox");
    let arguments = [&["--env-file", &file], &options[..], &[&image, "sh", "-c", script]].concat();
    let run = dir.invocation(&arguments).env("PATH_FROM_HOST", "host").env("SET_THERE", "value").finish();
    run.assert_status(0);
    let output = run.stdout_text();
    let expected = "file|line|has = and spaces |host|value|unset|hunter2\n/not/there/yet\n";
    assert!(output.starts_with(expected), "{}", run.report());
    assert_eq!(output.matches("hunter2").count(), 1, "a secret on the kernel's command line\n{}", run.report());
    assert!(!run.console.contains("hunter2"), "{}", run.report());
}

fn guest_has_a_containers_mounts_devices_and_files() {
    let dir = TestDir::new();
    let script = "set -e; for d in /proc /sys /dev/pts /dev/shm /dev/mqueue /sys/fs/cgroup; do \
                      grep -q \" $d \" /proc/mounts || echo not mounted: $d; done; \
                  for l in /dev/fd /dev/stdin /dev/stdout /dev/stderr; do [ -L $l ] || echo no link: $l; done; \
                  for c in null zero full random urandom tty ptmx; do [ -c /dev/$c ] || [ -L /dev/$c ] || echo no device: $c; done; \
                  [ -f /sys/fs/cgroup/cgroup.controllers ] || echo no cgroup v2; \
                  [ $$ = 1 ] || echo not PID 1; ls -d /proc/[0-9]* | wc -l; \
                  head -c 16 /dev/urandom | wc -c; grep -c localhost /etc/hosts; cat /etc/hostname | wc -l; \
                  ip link show lo | grep -c UP";
    let run = dir.run(&[&image("busybox"), "sh", "-c", script]);
    run.assert_status(0);
    let lines = run.stdout_text();
    let lines: Vec<&str> = lines.lines().collect();
    // The shell, `ls` and `wc`.
    assert!(matches!(lines[0], "1" | "2" | "3"), "processes seen: {}\n{}", lines[0], run.report());
    assert_eq!(lines[1], "16", "{}", run.report());
    assert!(lines[2] != "0" && lines[3..] == ["1", "1"], "{}", run.report());
}

fn written_file_is_gone_in_the_next_run() {
    let dir = TestDir::new();
    let image = image("busybox");
    dir.run(&[&image, "sh", "-c", "echo x > /root/mark"]).assert_status(0);
    dir.run(&[&image, "ls", "/root/mark"]).assert_status(1);
}

fn printed_configuration_runs_the_same() {
    let dir = TestDir::new();
    let image = image("busybox");
    let printed = dir.run(&["--print-config", "-e", "A=1", "-w", "/tmp", &image, "sh", "-c", "echo $A; pwd"]);
    printed.assert_status(0);
    let file = dir.write("config.json", &printed.stdout);
    let run = dir.run(&["--config", &file.display().to_string()]);
    run.assert_status(0).assert_stdout("1\n/tmp\n");
}

/// Each sample interrupts the guest, a thousand times a second. The workload must not notice.
fn profile_names_functions_and_leaves_the_guest_alone() {
    let dir = TestDir::new();
    let profile = dir.file("profile");
    let script = "for i in 1 2 3 4 5; do (exit $i); echo $?; done";
    let arguments = ["--profile", &profile.display().to_string(), &image("busybox"), "sh", "-c", script];
    dir.run(&arguments).assert_status(0).assert_stdout("1\n2\n3\n4\n5\n").assert_stderr("");
    let text = std::fs::read_to_string(profile).expect("it was written");
    let is_stack = |line: &str| line.rsplit_once(' ').is_some_and(|(_, count)| count.parse::<u64>().is_ok());
    let has_name = |line: &str| line.starts_with(|first: char| first.is_ascii_alphabetic());
    assert!(text.lines().all(is_stack) && text.lines().any(has_name), "{text}");
}
