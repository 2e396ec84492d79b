// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `coracle exec`: another process in a running machine.

use coracle_tests::{Case, Finished, Invocation, Pty, Stdin, TestDir, case, image, shared_machine};
use rustix::process::Signal;
use std::fs::File;
use std::time::{Duration, Instant};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Smoke, exec_has_its_own_streams_and_status),
        case!(Full, exec_redis_cli_reaches_the_server),
        case!(Full, exec_inherits_user_directory_and_environment),
        case!(Full, exec_shares_the_workloads_namespaces_and_end),
        case!(Full, exec_of_a_bad_command_has_a_shells_status),
        case!(Full, exec_passes_a_megabyte_in_and_out),
        case!(Full, exec_forwards_signals),
        case!(Full, exec_client_killed_hangs_up_its_command),
        case!(Full, exec_ends_though_descendants_hold_its_streams),
        case!(Full, exec_terminal_has_its_size_and_follows_a_resize),
        case!(Full, exec_client_that_does_not_read_stops_its_command_only),
        case!(Full, exec_serves_64_commands_and_rejects_one_more),
        case!(Full, exec_killed_by_oom_is_not_the_workloads_end),
        case!(Full, commands_wait_for_a_machine_that_starts),
        case!(Full, exec_rejects_paused_ended_and_unknown_machines),
        case!(Full, exec_detached_goes_on),
    ]
}

fn command(dir: &TestDir, arguments: &[&str]) -> Invocation {
    dir.verb("exec", arguments)
}

fn exec(dir: &TestDir, arguments: &[&str]) -> Finished {
    command(dir, arguments).finish()
}

fn exec_has_its_own_streams_and_status() {
    let dir = TestDir::new().keeping_machines();
    let run = dir.start_idle(&[]);
    let command = exec(&dir, &["m", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    command.assert_status(7).assert_stdout("out\n").assert_stderr("err\n");
    run.signal(Signal::TERM);
    run.finish().assert_status(143).assert_stdout("up\n").assert_stderr("");
}

fn exec_redis_cli_reaches_the_server() {
    let dir = TestDir::new().keeping_machines();
    let mut run = dir.start(&["--name", "m", &image("redis")]);
    run.wait_for_stdout("Ready");
    exec(&dir, &["m", "redis-cli", "ping"]).assert_status(0).assert_stdout("PONG\n");
    run.signal(Signal::TERM);
    run.finish().assert_status(0).assert_reason("stopped");
}

fn exec_inherits_user_directory_and_environment() {
    let dir = TestDir::new().keeping_machines();
    let attributes =
        ["--group-add", "4711", "--ulimit", "nofile=100:2000", "--cap-drop", "CHOWN", "--oom-score-adj", "7"];
    let options = ["-u", "1234:5678", "-w", "/tmp", "-e", "A=workload", "-e", "B=workload"];
    let run = dir.start_idle(&[&options[..], &attributes, &["--security-opt", "no-new-privileges"]].concat());
    let script = "id -u; id -g; pwd; echo $A $B $HOME; hostname";
    exec(&dir, &["m", "sh", "-c", script]).assert_stdout("1234\n5678\n/tmp\nworkload workload /\nm\n");
    // Limits and privileges are the workload's, too, as far as its user has some.
    let script = "for process in 1 self; do sed -nE 's/^(Groups|Cap(Eff|Bnd)|NoNewPrivs):[[:space:]]*//p' /proc/$process/status; \
                  sed -nE 's/^Max open files *([0-9]+) *([0-9]+).*/\\1 \\2/p' /proc/$process/limits; cat /proc/$process/oom_score_adj; done";
    let [ordinary, root] = [("4711 5678", "0000000000000000"), ("0 4711", "000001fffffffffe")]
        .map(|(groups, effective)| format!("{groups} \n{effective}\n000001fffffffffe\n1\n100 2000\n7\n"));
    exec(&dir, &["-u", "0", "m", "sh", "-c", script]).assert_stdout(&format!("{ordinary}{root}"));
    let given = ["-u", "root", "-w", "/etc", "-e", "A=own", "m", "sh", "-c", "id -u; pwd; echo $A $B"];
    exec(&dir, &given).assert_status(0).assert_stdout("0\n/etc\nown workload\n");
    exec(&dir, &["-w", "/nonexistent", "m", "pwd"]).assert_status(125).assert_one_line_naming(&["/nonexistent"]);
    exec(&dir, &["-u", "no-such-user", "m", "pwd"]).assert_status(125).assert_one_line_naming(&["no-such-user"]);
    run.stop_idle();
}

fn exec_shares_the_workloads_namespaces_and_end() {
    let dir = TestDir::new().keeping_machines();
    let run = dir.start_idle(&[]);
    exec(&dir, &["m", "touch", "/tmp/seen"]).assert_status(0);
    let script = "ls /tmp; tr '\\0' '\\n' < /proc/1/cmdline | head -1; for n in pid mnt uts ipc; do \
                  [ $(readlink /proc/1/ns/$n) = $(readlink /proc/self/ns/$n) ] || echo $n differs; done";
    exec(&dir, &["m", "sh", "-c", script]).assert_status(0).assert_stdout("seen\ncoracle-init\n");
    let mut left = command(&dir, &["m", "sh", "-c", "echo here; trap '' TERM; while :; do sleep 1; done"]).start();
    left.wait_for_stdout("here\n");
    run.stop_idle();
    left.finish().assert_status(137);
}

fn exec_of_a_bad_command_has_a_shells_status() {
    let dir = shared_machine();
    exec(&dir, &["m", "nosuch"]).assert_status(127).assert_one_line_naming(&["nosuch"]);
    exec(&dir, &["m", "/etc/passwd"]).assert_status(126).assert_one_line_naming(&["/etc/passwd"]);
    exec(&dir, &["m", "sh", "-c", "kill -9 $$"]).assert_status(137).assert_stderr("");
}

fn exec_passes_a_megabyte_in_and_out() {
    let dir = shared_machine();
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|index| (index * 7 % 251) as u8).collect();
    let file = dir.write("input", &bytes);
    let input = Stdin::File(File::open(file).expect("it was just written"));
    let echoed = command(&dir, &["-i", "m", "cat"]).stdin(input).finish();
    echoed.assert_status(0);
    assert!(echoed.stdout == bytes, "{} bytes of {}", echoed.stdout.len(), bytes.len());
    // A command that does not read its input ends as well.
    let file = File::open(dir.file("input")).expect("it is there");
    command(&dir, &["-i", "m", "true"]).stdin(Stdin::File(file)).finish().assert_status(0);
    exec(&dir, &["m", "cat"]).assert_status(0).assert_stdout("");
}

fn exec_forwards_signals() {
    let dir = shared_machine();
    let script =
        "trap 'echo usr1' USR1; trap 'echo term; exit 5' TERM; echo up; while :; do sleep 1000 & wait $!; done";
    let mut signalled = command(&dir, &["m", "sh", "-c", script]).start();
    signalled.wait_for_stdout("up\n");
    signalled.signal(Signal::USR1);
    signalled.wait_for_stdout("usr1\n");
    signalled.signal(Signal::TERM);
    signalled.finish().assert_status(5).assert_stdout("up\nusr1\nterm\n");
    // Without a handler a signal ends it: it is not PID 1 of the namespace.
    let mut plain = command(&dir, &["m", "sh", "-c", "echo up; exec sleep 1000"]).start();
    plain.wait_for_stdout("up\n");
    plain.signal(Signal::INT);
    plain.finish().assert_status(130);
}

fn exec_client_killed_hangs_up_its_command() {
    let dir = shared_machine();
    let script = "trap 'touch /tmp/hung-up; exit' HUP; echo up; while :; do sleep 1000 & wait $!; done";
    let mut killed = command(&dir, &["m", "sh", "-c", script]).start();
    killed.wait_for_stdout("up\n");
    killed.signal(Signal::KILL);
    let _ = killed.finish();
    exec(&dir, &["m", "sh", "-c", "until test -e /tmp/hung-up; do sleep 0.1; done"]).assert_status(0);
}

fn exec_ends_though_descendants_hold_its_streams() {
    let dir = shared_machine();
    // The harness's limit is far below the descendant's sleep.
    let script = "sleep 1000 & echo $! > /tmp/descendant; echo done";
    exec(&dir, &["m", "sh", "-c", script]).assert_status(0).assert_stdout("done\n");
    exec(&dir, &["m", "sh", "-c", "kill $(cat /tmp/descendant)"]).assert_status(0);
}

fn exec_terminal_has_its_size_and_follows_a_resize() {
    let dir = shared_machine();
    let mut pty = Pty::open(50, 132);
    let before = pty.modes();
    let invocation = command(&dir, &["-it", "m", "sh"]).wrapped(&["setsid", "--ctty"]);
    let streams = invocation.stdin(Stdin::File(pty.terminal())).stdout(pty.terminal()).stderr(pty.terminal());
    let shell = streams.start();
    pty.type_text("stty size\r");
    pty.wait_for("50 132");
    pty.resize(40, 100);
    pty.type_text("until stty size | grep '40 100'; do :; done; tty\r");
    pty.wait_for("\n40 100");
    pty.wait_for("/dev/pts/");
    pty.type_text("echo asleep; sleep 1000\r");
    pty.wait_for("\nasleep");
    pty.type_text("\x03exit 9\r");
    shell.finish().assert_status(9);
    assert_eq!(pty.modes(), before, "the terminal's modes afterwards");
}

fn exec_client_that_does_not_read_stops_its_command_only() {
    let dir = shared_machine();
    let (reader, writer) = std::io::pipe().expect("the host has pipes");
    let slow = command(&dir, &["m", "yes"]).stdout(writer).start();
    // Other commands run meanwhile, long enough for the first one to fill its pipe and stop.
    for _ in 0..3 {
        exec(&dir, &["m", "seq", "20000"]).assert_status(0);
    }
    drop(reader);
    slow.finish().assert_status(141);
}

fn exec_serves_64_commands_and_rejects_one_more() {
    let dir = TestDir::new().keeping_machines();
    let run = dir.start_idle(&[]);
    let mut all: Vec<_> = (0..20).map(|_| command(&dir, &["-i", "m", "cat"]).stdin(Stdin::Pipe).start()).collect();
    for (index, one) in all.iter_mut().enumerate() {
        one.send(format!("{index}\n"));
    }
    for (index, mut one) in all.into_iter().enumerate() {
        one.wait_for_stdout(&format!("{index}\n"));
        one.close_stdin();
        one.finish().assert_status(0).assert_stdout(&format!("{index}\n"));
    }
    for _ in 0..64 {
        exec(&dir, &["-d", "m", "sleep", "1000"]).assert_status(0);
    }
    exec(&dir, &["m", "true"]).assert_status(125).assert_one_line_naming(&["64"]);
    run.stop_idle();
}

fn exec_killed_by_oom_is_not_the_workloads_end() {
    let dir = TestDir::new().keeping_machines();
    let run = dir.start_idle(&["-m", "128m"]);
    let eater = exec(&dir, &["m", "tail", "/dev/zero"]);
    eater.assert_status(137).assert_one_line_naming(&["memory"]);
    run.stop_idle();
}

fn exec_rejects_paused_ended_and_unknown_machines() {
    let dir = TestDir::new().keeping_machines();
    exec(&dir, &["nosuch", "true"]).assert_status(125).assert_one_line_naming(&["nosuch"]);
    let run = dir.start_idle(&[]);
    let verb = |verb| dir.verb(verb, &["m"]).finish();
    verb("pause").assert_status(0);
    exec(&dir, &["m", "true"]).assert_status(125).assert_one_line_naming(&["m", "paused"]);
    verb("resume").assert_status(0);
    exec(&dir, &["m", "true"]).assert_status(0);
    run.stop_idle();
    exec(&dir, &["m", "true"]).assert_status(125).assert_one_line_naming(&["m", "exited"]);
}

fn commands_wait_for_a_machine_that_starts() {
    let dir = TestDir::new().keeping_machines();
    // Its name is not there yet when the first command looks for it.
    let run = dir.start(&["--name", "m", &image("busybox"), "sh", "-c", "trap 'exit 3' USR1; sleep 1000 & wait"]);
    let waiting = command(&dir, &["m", "echo", "late"]).start();
    let interrupted = command(&dir, &["m", "echo", "never"]).start();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !dir.run_directory().join("m/control.sock").exists() {
        assert!(Instant::now() < deadline, "no machine in the run directory");
        std::thread::yield_now();
    }
    // At once: a native host boots in less time than a client needs to start.
    interrupted.signal(Signal::INT);
    let stats = dir.verb("stats", &["--no-stream", "m"]).finish();
    stats.assert_status(0);
    let pause = dir.verb("pause", &["m"]).start();
    // Before it blocks its signals, INT has its default effect.
    let interrupted = interrupted.finish();
    assert!(interrupted.status.code().is_none_or(|code| code == 130), "{}", interrupted.report());
    assert_eq!(interrupted.stdout_text(), "");
    pause.finish().assert_status(0);
    dir.verb("resume", &["m"]).finish().assert_status(0);
    waiting.finish().assert_status(0).assert_stdout("late\n").assert_stderr("");
    dir.verb("kill", &["m"]).finish().assert_status(0);
    run.finish().assert_status(137).assert_reason("killed");
    // A machine that ends first.
    let run = dir.start(&["--name", "n", &image("busybox"), "nosuch"]);
    let exec = exec(&dir, &["n", "true"]);
    run.finish().assert_status(127);
    exec.assert_status(125).assert_one_line_naming(&["n", "ended before its workload ran"]);
}

fn exec_detached_goes_on() {
    let dir = shared_machine();
    exec(&dir, &["-d", "m", "sh", "-c", "sleep 1; touch /tmp/later"]).assert_status(0).assert_stdout("");
    exec(&dir, &["-d", "m", "nosuch"]).assert_status(127).assert_one_line_naming(&["nosuch"]);
    exec(&dir, &["m", "sh", "-c", "until test -e /tmp/later; do sleep 0.1; done"]).assert_status(0);
}
