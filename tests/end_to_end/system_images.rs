// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `--system`: a root file system with an init of its own, from its start to what is left on its disk.

use coracle_tests::{Case, Finished, Place, Pty, Running, Stdin, case, image, root_disk};
use rustix::process::Signal;
use std::path::Path;
use std::process::Command;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Full, a_system_stops_in_order_and_its_next_start_sees_what_it_wrote),
        case!(Full, a_reboot_inside_ends_the_run_with_its_reason),
        case!(Full, a_halt_inside_ends_the_run_with_its_reason),
        case!(Full, a_person_logs_in_on_the_console_of_a_system),
        case!(Full, a_system_boots_on_a_scratch_disk_and_leaves_its_own_as_it_was),
        case!(Smoke, an_init_finds_what_a_container_has_and_its_poweroff_ends_the_run),
        case!(Full, the_status_of_an_init_that_exits_is_the_runs),
        case!(Full, what_an_init_writes_in_place_is_on_the_disk_afterwards),
        case!(Full, a_killed_run_leaves_a_disk_that_starts_again),
        case!(Full, files_of_etc_are_the_systems_own_unless_something_is_asked_for),
        case!(Full, an_init_that_does_not_power_off_in_time_is_killed),
        case!(Full, a_root_without_an_init_is_told),
        case!(Full, a_root_that_cannot_be_written_in_place_is_told_with_the_cure),
        case!(Quick[Root], a_disk_that_may_only_be_read_is_refused_with_the_cure),
        case!(Quick, options_that_an_init_has_no_use_for_are_refused),
    ]
}

/// A copy of the test system's disk, for this test to write to.
fn disk(place: &Place) -> String {
    let disk = place.file("system.ext4");
    let mut copy = Command::new("cp");
    let copied = copy.args(["--sparse=always"]).arg(root_disk("debian-systemd")).arg(&disk).status();
    assert!(copied.expect("cp starts").success(), "cp to {}", disk.display());
    disk.display().to_string()
}

/// Nothing is wrong with the file system, and nothing is left in its journal.
fn assert_clean(disk: &str) {
    let check = Command::new("e2fsck").args(["-f", "-n", disk]).output().expect("e2fsck starts");
    let said = String::from_utf8_lossy(&check.stdout).into_owned() + &String::from_utf8_lossy(&check.stderr);
    assert!(check.status.success() && !said.contains("recover"), "{disk}: {}\n{said}", check.status);
}

/// Starts the test system, and waits until its own service runs, which is after multi-user.target.
fn started(place: &Place, arguments: &[&str]) -> Running {
    let mut run = place.start(&[&["--system", "-m", "512m"], arguments].concat());
    run.wait_for_stdout("report: multi-user.target reached");
    run
}

/// Runs `script` as the init of the system on `disk`.
fn script(place: &Place, disk: &str, options: &[&str], script: &str) -> Finished {
    place.run(&[&["--system", "--rootfs", disk], options, &["/bin/sh", "-c", script]].concat())
}

fn a_system_stops_in_order_and_its_next_start_sees_what_it_wrote() {
    let place = Place::new();
    let disk = disk(&place);
    let run = started(&place, &["--rootfs", &disk]);
    run.signal(Signal::TERM);
    let run = run.finish();
    run.assert_status(0).assert_reason("stopped").assert_stderr("");
    let said = run.stdout_text();
    for line in ["Detected virtualization container-other.", "report: multi-user.target reached, start 1"] {
        // Not the whole of a line: the login prompt may stand before it.
        assert!(said.contains(&format!("{line}\n")), "`{line}` is missing\n{}", run.report());
    }
    assert!(said.contains("report: stop 1\n"), "its service was not stopped\n{}", run.report());
    assert!(!said.contains("\r\n"), "line ends are a terminal's\n{}", run.report());
    assert_clean(&disk);

    let task = "TASK=systemctl --no-block poweroff";
    let again = place.run(&["--system", "-m", "512m", "-e", task, "--rootfs", &disk]);
    again.assert_status(0).assert_reason("guest-poweroff");
    let said = again.stdout_text();
    assert!(said.contains("reached, start 2\n") && said.contains("report: stop 2\n"), "{}", again.report());
    assert_clean(&disk);
}

fn a_reboot_inside_ends_the_run_with_its_reason() {
    let place = Place::new();
    let disk = disk(&place);
    let task = "TASK=systemctl --no-block reboot";
    let run = place.run(&["--system", "-m", "512m", "-e", task, "--rootfs", &disk]);
    run.assert_status(0).assert_reason("guest-reset");
    assert!(run.stdout_text().contains("report: stop 1\n"), "{}", run.report());
    assert_clean(&disk);
}

fn a_halt_inside_ends_the_run_with_its_reason() {
    let place = Place::new();
    let disk = disk(&place);
    let task = "TASK=systemctl --no-block halt";
    let run = place.run(&["--system", "-m", "512m", "-e", task, "--rootfs", &disk]);
    run.assert_status(0).assert_reason("guest-poweroff");
    assert_clean(&disk);
}

fn a_person_logs_in_on_the_console_of_a_system() {
    let place = Place::new();
    let disk = disk(&place);
    let mut pty = Pty::open(30, 100);
    let before = pty.modes();
    let invocation = place.invocation(&["--system", "-it", "-m", "512m", "--rootfs", &disk]);
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

fn a_system_boots_on_a_scratch_disk_and_leaves_its_own_as_it_was() {
    let place = Place::new();
    let disk = root_disk("debian-systemd").display().to_string();
    let run = started(&place, &["--scratch", "1g", "--rootfs", &disk]);
    run.signal(Signal::TERM);
    let run = run.finish();
    run.assert_status(0).assert_reason("stopped");
    assert!(run.stdout_text().contains("reached, start 1\n"), "{}", run.report());
    assert_eq!(run.result_at("/counters/disks/0/write_bytes"), 0, "the root disk was written\n{}", run.report());
}

/// An init as small as can be, which looks around.
const LOOK: &str = "echo pid $$; echo container=$container; tty < /dev/console; cat /proc/self/cgroup; \
                    mkdir /sys/fs/cgroup/made && rmdir /sys/fs/cgroup/made && echo cgroups; \
                    awk '$5 == \"/run\" || $5 == \"/\" { print $5, $7 ~ /shared/ }' /proc/self/mountinfo | sort -u; \
                    poweroff -f";

fn an_init_finds_what_a_container_has_and_its_poweroff_ends_the_run() {
    let place = Place::new();
    let run = place.run(&["--system", &image("busybox"), "sh", "-c", LOOK]);
    run.assert_status(0).assert_reason("guest-poweroff").assert_stderr("");
    let said = run.stdout_text();
    let expected = ["pid 1", "container=coracle", "/dev/console", "0::/", "cgroups", "/ 1", "/run 1"];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected, "{}", run.report());
}

fn the_status_of_an_init_that_exits_is_the_runs() {
    let place = Place::new();
    place.run(&["--system", &image("busybox"), "sh", "-c", "exit 7"]).assert_status(7).assert_reason("exited");
    let reset = place.run(&["--system", &image("busybox"), "sh", "-c", "reboot -f; sleep 100"]);
    reset.assert_status(0).assert_reason("guest-reset");
}

fn what_an_init_writes_in_place_is_on_the_disk_afterwards() {
    let place = Place::new();
    let disk = disk(&place);
    // Not synced, and the last thing that happens; a loop device keeps the disk busy beyond the end of all processes.
    let write = "truncate -s 16M /inner && mke2fs -q /inner && mkdir /mnt/inner && mount -o loop /inner /mnt/inner && \
                 echo inner > /mnt/inner/file && dd if=/dev/urandom of=/data bs=1M count=20 status=none && \
                 md5sum < /data > /sum && echo written";
    script(&place, &disk, &[], write).assert_status(0).assert_stdout("written\n");
    assert_clean(&disk);
    let read = "mount -o loop /inner /mnt/inner && cat /mnt/inner/file && md5sum < /data | cmp - /sum && echo same";
    script(&place, &disk, &["--read-only"], read).assert_status(0).assert_stdout("inner\nsame\n");
    script(&place, &disk, &["--read-only"], "touch /new || exit 9").assert_status(9);
    script(&place, &disk, &["--scratch", "tmpfs"], "touch /new").assert_status(0);
    script(&place, &disk, &[], "ls /new || exit 8").assert_status(8);
}

fn a_killed_run_leaves_a_disk_that_starts_again() {
    let place = Place::new().keeping_run_entries();
    let disk = disk(&place);
    let write = "echo kept > /kept; sync; echo up; while :; do echo more >> /more; done";
    let arguments = ["--name", "killed", "--system", "--rootfs", &disk, "/bin/sh", "-c", write];
    let mut run = place.start(&arguments);
    run.wait_for_stdout("up\n");
    run.signal(Signal::KILL);
    let killed = run.finish();
    assert_eq!(killed.status.code(), None, "{}", killed.report());
    script(&place, &disk, &[], "cat /kept").assert_status(0).assert_stdout("kept\n");
    assert_clean(&disk);
}

fn files_of_etc_are_the_systems_own_unless_something_is_asked_for() {
    let place = Place::new();
    let disk = disk(&place);
    let look = "hostname; cat /etc/hostname; ls /etc/hosts /etc/resolv.conf 2> /dev/null";
    let own = script(&place, &disk, &["--name", "machine", "--rm"], look);
    own.assert_stdout("machine\ndebian-systemd\n");
    let asked = script(&place, &disk, &["--hostname", "asked", "--dns", "10.0.0.1"], look);
    asked.assert_stdout("asked\nasked\n/etc/resolv.conf\n");
}

fn an_init_that_does_not_power_off_in_time_is_killed() {
    let place = Place::new();
    let init = "echo up; while :; do sleep 1; done";
    let mut run = place.start(&["--system", "--stop-timeout", "2", &image("busybox"), "sh", "-c", init]);
    run.wait_for_stdout("up\n");
    run.signal(Signal::TERM);
    run.finish().assert_status(137).assert_reason("killed");
}

fn a_root_without_an_init_is_told() {
    let place = Place::new();
    let run = place.run(&["--system", &image("busybox")]);
    run.assert_status(127).assert_reason("config-error").assert_one_line_naming(&["/sbin/init"]);
}

fn a_root_that_cannot_be_written_in_place_is_told_with_the_cure() {
    let place = Place::new();
    let disk = place.write("root.img", vec![0; 1 << 20]).display().to_string();
    let run = place.run(&["--system", "--rootfs", &disk]);
    run.assert_status(125).assert_reason("config-error").assert_one_line_naming(&["ext4", "--scratch"]);
}

fn a_disk_that_may_only_be_read_is_refused_with_the_cure() {
    let place = Place::new();
    let disk = place.write("root.img", vec![0; 1 << 20]);
    let run = place.invocation(&["--system", "--rootfs", &disk.display().to_string()]);
    let run = run.wrapped(&["unshare", "--mount", "sh", "-c", &read_only(&disk), "sh"]).finish();
    let objects = ["root.img", "--scratch", "--read-only", "Read-only file system"];
    run.assert_status(125).assert_reason("config-error").assert_one_line_naming(&objects);
}

/// Commands that make `file` read-only even for root, and then run their arguments.
fn read_only(file: &Path) -> String {
    let file = file.display();
    format!("mount --bind {file} {file} && mount -o remount,bind,ro {file} && exec \"$@\"")
}

fn options_that_an_init_has_no_use_for_are_refused() {
    let place = Place::new();
    for options in [&["--user", "app"][..], &["--workdir", "/srv"], &["--entrypoint", "sh"], &["--init"]] {
        let run = place.run(&[&["--system"], options, &["oci:/nowhere"]].concat());
        run.assert_status(125).assert_reason("config-error").assert_one_line_naming(&["--system", options[0]]);
    }
}
