// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `coracle exec`: another process in a running machine.

use coracle_tests::{Case, Finished, Invocation, Place, Pty, Stdin, case, image};
use rustix::process::Signal;
use std::fs::File;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Smoke, a_command_runs_beside_the_workload_with_streams_and_status_of_its_own),
        case!(Full, redis_answers_its_own_client),
        case!(Full, user_folder_and_environment_are_the_workloads_unless_given),
        case!(Full, a_command_shares_the_workloads_namespaces_and_dies_with_them),
        case!(Full, commands_that_cannot_run_have_the_statuses_of_a_shell),
        case!(Full, input_goes_in_as_fast_as_it_is_read_and_output_comes_out_whole),
        case!(Full, signals_reach_the_command),
        case!(Full, a_killed_client_hangs_up),
        case!(Full, descendants_that_hold_the_streams_do_not_hold_up_the_end),
        case!(Full, a_command_with_a_terminal_sees_its_size_and_its_changes),
        case!(Full, a_reader_that_does_not_read_stops_its_command_only),
        case!(Full, many_at_once_and_one_too_many),
        case!(Full, a_command_killed_for_want_of_memory_is_not_the_workload),
        case!(Full, paused_ended_and_unknown_machines_are_named),
        case!(Full, a_detached_command_goes_on),
    ]
}

fn command(place: &Place, arguments: &[&str]) -> Invocation {
    place.verb("exec", arguments)
}

fn exec(place: &Place, arguments: &[&str]) -> Finished {
    command(place, arguments).finish()
}

fn a_command_runs_beside_the_workload_with_streams_and_status_of_its_own() {
    let place = Place::new().keeping_run_entries();
    let run = place.start_idle(&[]);
    let command = exec(&place, &["m", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    command.assert_status(7).assert_stdout("out\n").assert_stderr("err\n");
    run.signal(Signal::TERM);
    run.finish().assert_status(143).assert_stdout("up\n").assert_stderr("");
}

fn redis_answers_its_own_client() {
    let place = Place::new().keeping_run_entries();
    let mut run = place.start(&["--name", "m", &image("redis")]);
    run.wait_for_stdout("Ready");
    exec(&place, &["m", "redis-cli", "ping"]).assert_status(0).assert_stdout("PONG\n");
    run.signal(Signal::TERM);
    run.finish().assert_status(0).assert_reason("stopped");
}

fn user_folder_and_environment_are_the_workloads_unless_given() {
    let place = Place::new().keeping_run_entries();
    let run = place.start_idle(&["-u", "1234:5678", "-w", "/tmp", "-e", "A=workload", "-e", "B=workload"]);
    let script = "id -u; id -g; pwd; echo $A $B $HOME; hostname";
    exec(&place, &["m", "sh", "-c", script]).assert_stdout("1234\n5678\n/tmp\nworkload workload /\nm\n");
    let given = ["-u", "root", "-w", "/etc", "-e", "A=own", "m", "sh", "-c", "id -u; pwd; echo $A $B"];
    exec(&place, &given).assert_status(0).assert_stdout("0\n/etc\nown workload\n");
    exec(&place, &["-w", "/nonexistent", "m", "pwd"]).assert_status(125).assert_one_line_naming(&["/nonexistent"]);
    exec(&place, &["-u", "nobody-there", "m", "pwd"]).assert_status(125).assert_one_line_naming(&["nobody-there"]);
    run.stop_idle();
}

fn a_command_shares_the_workloads_namespaces_and_dies_with_them() {
    let place = Place::new().keeping_run_entries();
    let run = place.start_idle(&[]);
    exec(&place, &["m", "touch", "/tmp/seen"]).assert_status(0);
    let script = "ls /tmp; tr '\\0' '\\n' < /proc/1/cmdline | head -1; for n in pid mnt uts ipc; do \
                  [ $(readlink /proc/1/ns/$n) = $(readlink /proc/self/ns/$n) ] || echo $n differs; done";
    exec(&place, &["m", "sh", "-c", script]).assert_status(0).assert_stdout("seen\ncoracle-init\n");
    let mut left = command(&place, &["m", "sh", "-c", "echo here; trap '' TERM; while :; do sleep 1; done"]).start();
    left.wait_for_stdout("here\n");
    run.stop_idle();
    left.finish().assert_status(137);
}

fn commands_that_cannot_run_have_the_statuses_of_a_shell() {
    let place = Place::new().keeping_run_entries();
    let run = place.start_idle(&[]);
    exec(&place, &["m", "nosuch"]).assert_status(127).assert_one_line_naming(&["nosuch"]);
    exec(&place, &["m", "/etc/passwd"]).assert_status(126).assert_one_line_naming(&["/etc/passwd"]);
    exec(&place, &["m", "sh", "-c", "kill -9 $$"]).assert_status(137).assert_stderr("");
    run.stop_idle();
}

fn input_goes_in_as_fast_as_it_is_read_and_output_comes_out_whole() {
    let place = Place::new().keeping_run_entries();
    let run = place.start_idle(&[]);
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|index| (index * 7 % 251) as u8).collect();
    let file = place.write("input", &bytes);
    let input = Stdin::File(File::open(file).expect("it was just written"));
    let echoed = command(&place, &["-i", "m", "cat"]).stdin(input).finish();
    echoed.assert_status(0);
    assert!(echoed.stdout == bytes, "{} bytes of {}", echoed.stdout.len(), bytes.len());
    // A command that does not read its input ends all the same.
    let file = File::open(place.file("input")).expect("it is there");
    command(&place, &["-i", "m", "true"]).stdin(Stdin::File(file)).finish().assert_status(0);
    exec(&place, &["m", "cat"]).assert_status(0).assert_stdout("");
    run.stop_idle();
}

fn signals_reach_the_command() {
    let place = Place::new().keeping_run_entries();
    let run = place.start_idle(&[]);
    let script =
        "trap 'echo usr1' USR1; trap 'echo term; exit 5' TERM; echo up; while :; do sleep 1000 & wait $!; done";
    let mut signalled = command(&place, &["m", "sh", "-c", script]).start();
    signalled.wait_for_stdout("up\n");
    signalled.signal(Signal::USR1);
    signalled.wait_for_stdout("usr1\n");
    signalled.signal(Signal::TERM);
    signalled.finish().assert_status(5).assert_stdout("up\nusr1\nterm\n");
    // Without a handler a signal ends it: it is no first process of a namespace.
    let mut plain = command(&place, &["m", "sh", "-c", "echo up; exec sleep 1000"]).start();
    plain.wait_for_stdout("up\n");
    plain.signal(Signal::INT);
    plain.finish().assert_status(130);
    run.stop_idle();
}

fn a_killed_client_hangs_up() {
    let place = Place::new().keeping_run_entries();
    let run = place.start_idle(&[]);
    let script = "trap 'touch /tmp/hung-up; exit' HUP; echo up; while :; do sleep 1000 & wait $!; done";
    let mut killed = command(&place, &["m", "sh", "-c", script]).start();
    killed.wait_for_stdout("up\n");
    killed.signal(Signal::KILL);
    let _ = killed.finish();
    exec(&place, &["m", "sh", "-c", "until test -e /tmp/hung-up; do sleep 0.1; done"]).assert_status(0);
    run.stop_idle();
}

fn descendants_that_hold_the_streams_do_not_hold_up_the_end() {
    let place = Place::new().keeping_run_entries();
    let run = place.start_idle(&[]);
    // The limit of a call is far below what the descendant sleeps.
    exec(&place, &["m", "sh", "-c", "sleep 1000 & echo done"]).assert_status(0).assert_stdout("done\n");
    exec(&place, &["m", "pidof", "sleep"]).assert_status(0);
    run.stop_idle();
}

fn a_command_with_a_terminal_sees_its_size_and_its_changes() {
    let place = Place::new().keeping_run_entries();
    let run = place.start_idle(&[]);
    let mut pty = Pty::open(50, 132);
    let before = pty.modes();
    let invocation = command(&place, &["-it", "m", "sh"]).wrapped(&["setsid", "--ctty"]);
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
    run.stop_idle();
}

fn a_reader_that_does_not_read_stops_its_command_only() {
    let place = Place::new().keeping_run_entries();
    let run = place.start_idle(&[]);
    let (reader, writer) = std::io::pipe().expect("the host has pipes");
    let slow = command(&place, &["m", "yes"]).stdout(writer).start();
    // Meanwhile others run as ever, and after a while the first one is stopped for good.
    for _ in 0..3 {
        exec(&place, &["m", "seq", "20000"]).assert_status(0);
    }
    drop(reader);
    slow.finish().assert_status(141);
    run.stop_idle();
}

fn many_at_once_and_one_too_many() {
    let place = Place::new().keeping_run_entries();
    let run = place.start_idle(&[]);
    let mut all: Vec<_> = (0..20).map(|_| command(&place, &["-i", "m", "cat"]).stdin(Stdin::Pipe).start()).collect();
    for (index, one) in all.iter_mut().enumerate() {
        one.send(format!("{index}\n"));
    }
    for (index, mut one) in all.into_iter().enumerate() {
        one.wait_for_stdout(&format!("{index}\n"));
        one.close_stdin();
        one.finish().assert_status(0).assert_stdout(&format!("{index}\n"));
    }
    for _ in 0..64 {
        exec(&place, &["-d", "m", "sleep", "1000"]).assert_status(0);
    }
    exec(&place, &["m", "true"]).assert_status(125).assert_one_line_naming(&["64"]);
    run.stop_idle();
}

fn a_command_killed_for_want_of_memory_is_not_the_workload() {
    let place = Place::new().keeping_run_entries();
    let run = place.start_idle(&["-m", "128m"]);
    let eater = exec(&place, &["m", "tail", "/dev/zero"]);
    eater.assert_status(137).assert_one_line_naming(&["memory"]);
    run.stop_idle();
}

fn paused_ended_and_unknown_machines_are_named() {
    let place = Place::new().keeping_run_entries();
    exec(&place, &["nosuch", "true"]).assert_status(125).assert_one_line_naming(&["nosuch"]);
    let run = place.start_idle(&[]);
    let verb = |verb| place.verb(verb, &["m"]).finish();
    verb("pause").assert_status(0);
    exec(&place, &["m", "true"]).assert_status(125).assert_one_line_naming(&["m", "paused"]);
    verb("resume").assert_status(0);
    exec(&place, &["m", "true"]).assert_status(0);
    run.stop_idle();
    exec(&place, &["m", "true"]).assert_status(125).assert_one_line_naming(&["m", "exited"]);
}

fn a_detached_command_goes_on() {
    let place = Place::new().keeping_run_entries();
    let run = place.start_idle(&[]);
    exec(&place, &["-d", "m", "sh", "-c", "sleep 1; touch /tmp/later"]).assert_status(0).assert_stdout("");
    exec(&place, &["-d", "m", "nosuch"]).assert_status(127).assert_one_line_naming(&["nosuch"]);
    exec(&place, &["m", "sh", "-c", "until test -e /tmp/later; do sleep 0.1; done"]).assert_status(0);
    run.stop_idle();
}
