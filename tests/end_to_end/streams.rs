// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The process's standard streams are the workload's: separate, complete, and closed when the other side closes.

use coracle_tests::{Case, Host, Kvm, Stdin, TestDir, case, image};
use std::io::Read;
use std::process::Stdio;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(Smoke, stdout_stderr_and_status_are_the_workloads),
        case!(Full, stdin_and_its_end_reach_the_workload),
        case!(Smoke, long_output_arrives_complete_on_both_streams),
        case!(Full, closed_stdout_ends_the_writer),
        case!(Full, long_input_comes_back_complete),
        case!(Full, stdin_without_i_is_at_its_end),
        case!(Full, output_without_a_final_newline_is_not_changed),
        case!(Full, bytes_of_every_value_pass_unchanged),
        case!(Full, stdin_closed_by_the_workload_does_not_stop_the_run),
        case!(Full, output_of_descendants_is_drained_before_the_end),
        case!(Full, dev_stdout_can_be_opened_by_its_user),
    ]
}

fn stdout_stderr_and_status_are_the_workloads() {
    let dir = TestDir::new();
    let run = dir.run(&[&image("busybox"), "sh", "-c", "echo out; echo err >&2; exit 7"]);
    run.assert_status(7).assert_reason("exited").assert_stdout("out\n").assert_stderr("err\n");
}

fn stdin_and_its_end_reach_the_workload() {
    let dir = TestDir::new();
    let mut run = dir.invocation(&["-i", &image("busybox"), "cat"]).stdin(Stdin::Pipe).start();
    run.send("hello\n");
    run.close_stdin();
    run.finish().assert_status(0).assert_stdout("hello\n").assert_stderr("");
}

/// 64 MiB, or 1 MiB where guest kernel mode is emulated.
fn long_mebibytes() -> usize {
    if Host::detect().kvm == Kvm::Native { 64 } else { 1 }
}

fn long_output_arrives_complete_on_both_streams() {
    let dir = TestDir::new();
    let bytes = long_mebibytes() << 20;
    let script = format!("yes 'to stderr' | head -c 65536 >&2; yes 'all of it' | head -c {bytes}");
    let run = dir.run(&[&image("busybox"), "sh", "-c", &script]);
    run.assert_status(0);
    let mut expected = b"all of it\n".repeat(bytes / 10 + 1);
    expected.truncate(bytes);
    assert_eq!(run.stdout.len(), bytes, "length of stdout");
    assert!(run.stdout == expected, "stdout is not what was written");
    assert_eq!(run.stderr.len(), 65536, "length of stderr");
}

fn closed_stdout_ends_the_writer() {
    let dir = TestDir::new();
    // Like `coracle run ... yes | head -1`: the pipe is closed while the workload writes without end.
    let (mut reader, writer) = std::io::pipe().expect("the host has pipes");
    let run = dir.invocation(&[&image("busybox"), "yes"]).stdout(Stdio::from(writer)).start();
    let mut first = [0; 2];
    reader.read_exact(&mut first).expect("the workload writes");
    assert_eq!(&first, b"y\n");
    drop(reader);
    // The workload is PID 1 of its namespace, where SIGPIPE has no effect, so that it ends by its own handling of EPIPE.
    let end = run.finish();
    assert!(matches!(end.status.code(), Some(1 | 141)), "ended by EPIPE or SIGPIPE\n{}", end.report());
}

fn long_input_comes_back_complete() {
    let dir = TestDir::new();
    let bytes: Vec<u8> = (0..8 << 20).map(|index: u32| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let source = dir.write("input", &bytes);
    let file = std::fs::File::open(source).expect("just written");
    let run = dir.invocation(&["-i", &image("busybox"), "cat"]).stdin(Stdin::File(file)).finish();
    run.assert_status(0);
    assert!(run.stdout == bytes, "{} bytes came back, or others", run.stdout.len());
}

fn stdin_without_i_is_at_its_end() {
    let dir = TestDir::new();
    let mut run = dir.invocation(&[&image("busybox"), "sh", "-c", "cat; echo done"]).stdin(Stdin::Pipe).start();
    run.send("not for the guest\n");
    run.finish().assert_status(0).assert_stdout("done\n");
}

fn output_without_a_final_newline_is_not_changed() {
    let dir = TestDir::new();
    let run = dir.run(&[&image("busybox"), "printf", "no newline"]);
    run.assert_status(0).assert_stdout("no newline");
}

fn bytes_of_every_value_pass_unchanged() {
    let dir = TestDir::new();
    let every: Vec<u8> = (0..=255).collect();
    let mut run = dir.invocation(&["-i", &image("busybox"), "cat"]).stdin(Stdin::Pipe).start();
    run.send(&every);
    run.close_stdin();
    let run = run.finish();
    run.assert_status(0);
    assert_eq!(run.stdout, every);
}

fn stdin_closed_by_the_workload_does_not_stop_the_run() {
    let dir = TestDir::new();
    let source = dir.write("input", vec![b'x'; 4 << 20]);
    let file = std::fs::File::open(source).expect("just written");
    let script = "exec <&-; i=0; while [ $i -lt 1000 ]; do i=$((i+1)); done; echo still here";
    let run = dir.invocation(&["-i", &image("busybox"), "sh", "-c", script]).stdin(Stdin::File(file)).finish();
    run.assert_status(0).assert_stdout("still here\n");
}

fn output_of_descendants_is_drained_before_the_end() {
    let dir = TestDir::new();
    let script = "(yes descendant | head -c 1048576; echo end) & wait; exit 3";
    let run = dir.run(&[&image("busybox"), "sh", "-c", script]);
    run.assert_status(3);
    assert!(run.stdout.ends_with(b"end\n"), "the last line is there");
    assert_eq!(run.stdout.len(), (1 << 20) + 4);
}

fn dev_stdout_can_be_opened_by_its_user() {
    let dir = TestDir::new();
    let script = "echo through the link > /dev/stdout; echo error > /dev/stderr";
    let run = dir.run(&["-u", "1234:1234", &image("busybox"), "sh", "-c", script]);
    run.assert_status(0).assert_stdout("through the link\n").assert_stderr("error\n");
}
