// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--system`: a root file system with its own init, from its start to what is left on its disk.

use coracle_tests::{Case, Finished, Pty, Running, Stdin, TestDir, case, image, root_disk};
use rustix::process::Signal;
use std::path::Path;
use std::process::Command;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Full, system_stops_in_order_and_keeps_what_it_wrote),
        case!(Full, system_reboot_ends_with_guest_reset),
        case!(Full, system_halt_ends_with_guest_poweroff),
        case!(Full, system_console_takes_a_login),
        case!(Full, system_on_a_scratch_disk_leaves_its_own_unchanged),
        case!(Smoke, init_has_a_containers_environment_and_its_poweroff_ends),
        case!(Full, init_that_exits_gives_the_status),
        case!(Full, disk_has_what_an_init_wrote_in_place),
        case!(Full, killed_run_leaves_a_disk_that_starts_again),
        case!(Full, etc_files_are_the_systems_own_unless_requested),
        case!(Full, init_that_does_not_power_off_in_time_is_killed),
        case!(Full, root_without_an_init_is_rejected),
        case!(Full, root_that_cannot_be_written_is_rejected_with_the_remedy),
        case!(Quick[Root], read_only_disk_as_root_is_rejected_with_the_remedy),
        case!(Quick, system_rejects_options_of_a_workload),
    ]
}

/// A copy of the test system's disk that the test may write to.
fn disk(dir: &TestDir) -> String {
    let disk = dir.file("system.ext4");
    let mut copy = Command::new("cp");
    let copied = copy.args(["--sparse=always"]).arg(root_disk("debian-systemd")).arg(&disk).status();
    assert!(copied.expect("cp starts").success(), "cp to {}", disk.display());
    disk.display().to_string()
}

/// The file system has no errors, and its journal is empty.
fn assert_clean(disk: &str) {
    let check = Command::new("e2fsck").args(["-f", "-n", disk]).output().expect("e2fsck starts");
    let output = String::from_utf8_lossy(&check.stdout).into_owned() + &String::from_utf8_lossy(&check.stderr);
    assert!(check.status.success() && !output.contains("recover"), "{disk}: {}\n{output}", check.status);
}

/// Starts the test system and waits until its service runs, which is after multi-user.target.
fn started(dir: &TestDir, arguments: &[&str]) -> Running {
    let mut run = dir.start(&[&["--system", "-m", "512m"], arguments].concat());
    run.wait_for_stdout("report: multi-user.target reached");
    run
}

/// Runs `script` as the init of the system on `disk`.
fn script(dir: &TestDir, disk: &str, options: &[&str], script: &str) -> Finished {
    dir.run(&[&["--system", "--rootfs", disk], options, &["/bin/sh", "-c", script]].concat())
}

fn system_stops_in_order_and_keeps_what_it_wrote() {
    let dir = TestDir::new();
    let disk = disk(&dir);
    let run = started(&dir, &["--rootfs", &disk]);
    run.signal(Signal::TERM);
    let run = run.finish();
    run.assert_status(0).assert_reason("stopped").assert_stderr("");
    let output = run.stdout_text();
    for line in ["Detected virtualization container-other.", "report: multi-user.target reached, start 1"] {
        // Not a complete line: the login prompt may come before it.
        assert!(output.contains(&format!("{line}\n")), "`{line}` is missing\n{}", run.report());
    }
    assert!(output.contains("report: stop 1\n"), "its service was not stopped\n{}", run.report());
    assert!(!output.contains("\r\n"), "line ends are a terminal's\n{}", run.report());
    assert_clean(&disk);

    let task = "TASK=systemctl --no-block poweroff";
    let again = dir.run(&["--system", "-m", "512m", "-e", task, "--rootfs", &disk]);
    again.assert_status(0).assert_reason("guest-poweroff");
    let output = again.stdout_text();
    assert!(output.contains("reached, start 2\n") && output.contains("report: stop 2\n"), "{}", again.report());
    assert_clean(&disk);
}

fn system_reboot_ends_with_guest_reset() {
    let dir = TestDir::new();
    let disk = disk(&dir);
    let task = "TASK=systemctl --no-block reboot";
    let run = dir.run(&["--system", "-m", "512m", "-e", task, "--rootfs", &disk]);
    run.assert_status(0).assert_reason("guest-reset");
    assert!(run.stdout_text().contains("report: stop 1\n"), "{}", run.report());
    assert_clean(&disk);
}

fn system_halt_ends_with_guest_poweroff() {
    let dir = TestDir::new();
    let disk = disk(&dir);
    let task = "TASK=systemctl --no-block halt";
    let run = dir.run(&["--system", "-m", "512m", "-e", task, "--rootfs", &disk]);
    run.assert_status(0).assert_reason("guest-poweroff");
    assert_clean(&disk);
}

fn system_console_takes_a_login() {
    let dir = TestDir::new();
    let disk = disk(&dir);
    let mut pty = Pty::open(30, 100);
    let before = pty.modes();
    let invocation = dir.invocation(&["--system", "-it", "-m", "512m", "--rootfs", &disk]);
    let invocation = invocation.wrapped(&["setsid", "--ctty"]).stdin(Stdin::File(pty.terminal()));
    let run = invocation.stdout(pty.terminal()).stderr(pty.terminal()).start();
    pty.wait_for("login: ");
    pty.type_text("root\r");
    pty.wait_for("# ");
    pty.type_text("tty; stty size; echo user $USER; poweroff\r");
    pty.wait_for("user root");
    run.finish().assert_status(0).assert_reason("guest-poweroff");
    assert!(pty.screen().contains("/dev/console") && pty.screen().contains("30 100"), "{}", pty.screen());
    assert_eq!(pty.modes(), before, "the terminal's modes after the run");
}

fn system_on_a_scratch_disk_leaves_its_own_unchanged() {
    let dir = TestDir::new();
    let disk = root_disk("debian-systemd").display().to_string();
    let run = started(&dir, &["--scratch", "1g", "--rootfs", &disk]);
    run.signal(Signal::TERM);
    let run = run.finish();
    run.assert_status(0).assert_reason("stopped");
    assert!(run.stdout_text().contains("reached, start 1\n"), "{}", run.report());
    assert_eq!(run.result_at("/counters/disks/0/write_bytes"), 0, "the root disk was written\n{}", run.report());
}

/// A small init that prints its environment.
const LOOK: &str = "echo pid $$; echo container=$container; tty < /dev/console; cat /proc/self/cgroup; \
                    mkdir /sys/fs/cgroup/made && rmdir /sys/fs/cgroup/made && echo cgroups; \
                    awk '$5 == \"/run\" || $5 == \"/\" { print $5, $7 ~ /shared/ }' /proc/self/mountinfo | sort -u; \
                    poweroff -f";

fn init_has_a_containers_environment_and_its_poweroff_ends() {
    let dir = TestDir::new();
    let run = dir.run(&["--system", &image("busybox"), "sh", "-c", LOOK]);
    run.assert_status(0).assert_reason("guest-poweroff").assert_stderr("");
    let output = run.stdout_text();
    let expected = ["pid 1", "container=coracle", "/dev/console", "0::/", "cgroups", "/ 1", "/run 1"];
    assert_eq!(output.lines().collect::<Vec<_>>(), expected, "{}", run.report());
}

fn init_that_exits_gives_the_status() {
    let dir = TestDir::new();
    dir.run(&["--system", &image("busybox"), "sh", "-c", "exit 7"]).assert_status(7).assert_reason("exited");
    let reset = dir.run(&["--system", &image("busybox"), "sh", "-c", "reboot -f; sleep 100"]);
    reset.assert_status(0).assert_reason("guest-reset");
}

fn disk_has_what_an_init_wrote_in_place() {
    let dir = TestDir::new();
    let disk = disk(&dir);
    // Written last and not synced; a loop device keeps the disk busy after the end of all processes.
    let write = "truncate -s 16M /inner && mke2fs -q /inner && mkdir /mnt/inner && mount -o loop /inner /mnt/inner && \
                 echo inner > /mnt/inner/file && dd if=/dev/urandom of=/data bs=1M count=20 status=none && \
                 md5sum < /data > /sum && echo written";
    script(&dir, &disk, &[], write).assert_status(0).assert_stdout("written\n");
    assert_clean(&disk);
    let read = "mount -o loop /inner /mnt/inner && cat /mnt/inner/file && md5sum < /data | cmp - /sum && echo same";
    script(&dir, &disk, &["--read-only"], read).assert_status(0).assert_stdout("inner\nsame\n");
    script(&dir, &disk, &["--read-only"], "touch /new || exit 9").assert_status(9);
    script(&dir, &disk, &["--scratch", "tmpfs"], "touch /new").assert_status(0);
    script(&dir, &disk, &[], "ls /new || exit 8").assert_status(8);
}

fn killed_run_leaves_a_disk_that_starts_again() {
    let dir = TestDir::new().keeping_machines();
    let disk = disk(&dir);
    let write = "echo kept > /kept; sync; echo up; while :; do echo more >> /more; done";
    let arguments = ["--name", "killed", "--system", "--rootfs", &disk, "/bin/sh", "-c", write];
    let mut run = dir.start(&arguments);
    run.wait_for_stdout("up\n");
    run.signal(Signal::KILL);
    let killed = run.finish();
    assert_eq!(killed.status.code(), None, "{}", killed.report());
    script(&dir, &disk, &[], "cat /kept").assert_status(0).assert_stdout("kept\n");
    assert_clean(&disk);
}

fn etc_files_are_the_systems_own_unless_requested() {
    let dir = TestDir::new();
    let disk = disk(&dir);
    let look = "hostname; cat /etc/hostname; ls /etc/hosts /etc/resolv.conf 2> /dev/null";
    let own = script(&dir, &disk, &["--name", "machine", "--rm"], look);
    own.assert_stdout("machine\ndebian-systemd\n");
    let asked = script(&dir, &disk, &["--hostname", "asked", "--dns", "10.0.0.1"], look);
    asked.assert_stdout("asked\nasked\n/etc/resolv.conf\n");
}

fn init_that_does_not_power_off_in_time_is_killed() {
    let dir = TestDir::new();
    let init = "echo up; while :; do sleep 1; done";
    let mut run = dir.start(&["--system", "--stop-timeout", "2", &image("busybox"), "sh", "-c", init]);
    run.wait_for_stdout("up\n");
    run.signal(Signal::TERM);
    run.finish().assert_status(137).assert_reason("killed");
}

fn root_without_an_init_is_rejected() {
    let dir = TestDir::new();
    let run = dir.run(&["--system", &image("busybox")]);
    run.assert_status(127).assert_reason("config-error").assert_one_line_naming(&["/sbin/init"]);
}

fn root_that_cannot_be_written_is_rejected_with_the_remedy() {
    let dir = TestDir::new();
    let disk = dir.write("root.img", vec![0; 1 << 20]).display().to_string();
    let run = dir.run(&["--system", "--rootfs", &disk]);
    run.assert_status(125).assert_reason("config-error").assert_one_line_naming(&["ext4", "--scratch"]);
}

fn read_only_disk_as_root_is_rejected_with_the_remedy() {
    let dir = TestDir::new();
    let disk = dir.write("root.img", vec![0; 1 << 20]);
    let run = dir.invocation(&["--system", "--rootfs", &disk.display().to_string()]);
    let run = run.wrapped(&["unshare", "--mount", "sh", "-c", &read_only(&disk), "sh"]).finish();
    let objects = ["root.img", "--scratch", "--read-only", "Read-only file system"];
    run.assert_status(125).assert_reason("config-error").assert_one_line_naming(&objects);
}

/// A script that makes `file` read-only, for root as well, and executes its arguments.
fn read_only(file: &Path) -> String {
    let file = file.display();
    format!("mount --bind {file} {file} && mount -o remount,bind,ro {file} && exec \"$@\"")
}

fn system_rejects_options_of_a_workload() {
    let dir = TestDir::new();
    for options in [&["--user", "app"][..], &["--workdir", "/srv"], &["--entrypoint", "sh"], &["--init"]] {
        let run = dir.run(&[&["--system"], options, &["oci:/nowhere"]].concat());
        run.assert_status(125).assert_reason("config-error").assert_one_line_naming(&["--system", options[0]]);
    }
}
